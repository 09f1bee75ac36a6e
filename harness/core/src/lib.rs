//! What both programs agree on: the files of an experiment's folder, durable writes, and rules that both must apply alike.
//!
//! It neither submits nor supervises.

pub mod build_info;
pub mod checksum;
pub mod claim;
pub mod durable;
pub mod duration;
pub mod environment;
pub mod error_class;
pub mod exit;
pub mod gone_folder;
pub mod interval;
pub mod lead;
pub mod lines;
pub mod log_line;
pub mod open;
pub mod own_paths;
pub mod package;
pub mod patterns;
pub mod percent;
pub mod placeholder;
pub mod proc_fs;
pub mod process_id;
pub mod profile;
pub mod progress;
pub mod retention;
pub mod room;
pub mod rundir;
pub mod scope;
pub mod shell;
pub mod show_job;
pub mod slurm_words;
pub mod stop_times;
pub mod trust;
