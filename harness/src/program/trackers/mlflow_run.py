# Finds the MLflow run of a trial by its name, or makes it, and prints its id.
import os

from mlflow.tracking import MlflowClient

own = os.environ["NEMO_RUN_ID"]
client = MlflowClient()
experiment = os.environ.get("MLFLOW_EXPERIMENT_ID")
if not experiment:
    name = os.environ["MLFLOW_EXPERIMENT_NAME"]
    found = client.get_experiment_by_name(name)
    try:
        experiment = found.experiment_id if found else client.create_experiment(name)
    except Exception:  # another trial was first
        experiment = client.get_experiment_by_name(name).experiment_id
runs = client.search_runs([experiment], "tags.`nemo.run_id` = '%s'" % own)
if runs:
    run = runs[0]
else:
    name = "%s/%s" % (os.environ["NEMO_TASK"], os.environ["NEMO_TRIAL"])
    tags = {"nemo.run_id": own, "nemo.experiment": os.environ["NEMO_EXPERIMENT"]}
    run = client.create_run(experiment, run_name=name, tags=tags)
print("nemo-mlflow-run=" + run.info.run_id)
