//! Other people's words for ours, by which a hint can tell what was meant. They are never taken as they are.

/// Words as they are written elsewhere, each with ours.
pub(super) type Synonyms = [(&'static str, &'static str)];

/// Of `goal`.
pub(super) const GOALS: &Synonyms = &[
    ("lower", "min"),
    ("lowest", "min"),
    ("low", "min"),
    ("down", "min"),
    ("smaller", "min"),
    ("smallest", "min"),
    ("less", "min"),
    ("higher", "max"),
    ("highest", "max"),
    ("high", "max"),
    ("up", "max"),
    ("larger", "max"),
    ("largest", "max"),
    ("greater", "max"),
    ("more", "max"),
];

/// Of `on`: Slurm's, and what people say.
pub(super) const ENDS: &Synonyms = &[
    ("afterok", "ok"),
    ("success", "ok"),
    ("succeeded", "ok"),
    ("completed", "ok"),
    ("done", "ok"),
    ("all", "ok"),
    ("afternotok", "failed"),
    ("notok", "failed"),
    ("error", "failed"),
    ("crash", "failed"),
    ("crashed", "failed"),
    ("afterany", "any"),
    ("always", "any"),
    ("end", "any"),
    ("ended", "any"),
    ("over", "any"),
    ("finished", "any"),
    ("aftercorr", "each"),
    ("corr", "each"),
    ("trial", "each"),
];

/// Of `profile`.
pub(super) const PROFILES: &Synonyms = &[
    ("pytorch-lightning", "lightning"),
    ("pytorch_lightning", "lightning"),
    ("pl", "lightning"),
    ("fabric", "lightning"),
    ("huggingface", "transformers"),
    ("hugging-face", "transformers"),
    ("hugging_face", "transformers"),
    ("hf", "transformers"),
    ("trainer", "transformers"),
    ("torch", "torchrun"),
    ("torchelastic", "torchrun"),
    ("elastic", "torchrun"),
    ("htcondor", "condor"),
];

/// Of `launch`.
pub(super) const LAUNCHERS: &Synonyms = &[
    ("torch", "torchrun"),
    ("torchelastic", "torchrun"),
    ("elastic", "torchrun"),
    ("ddp", "torchrun"),
    ("torch.distributed.run", "torchrun"),
    ("torch.distributed.launch", "torchrun"),
    ("python -m torch.distributed.run", "torchrun"),
];
