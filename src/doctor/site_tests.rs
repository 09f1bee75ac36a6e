//! What each setting of a site leads to.

use super::super::Level;
use super::*;
use crate::slurm::parse::{config, partition};

fn site(config_lines: &str, partition_line: &str) -> SiteFacts {
    let base = "ClusterName = dev\nSLURM_VERSION = 24.11.5\nMinJobAge = 300 sec\nJobAcctGatherType = jobacct_gather/linux\nAccountingStorageType = accounting_storage/slurmdbd\n";
    // The last line of a key counts.
    let limits = config::parse(format!("{base}{config_lines}").as_bytes()).unwrap();
    let line =
        format!("PartitionName=main Default=YES MaxTime=UNLIMITED State=UP {partition_line}\n");
    let partitions = partition::parse(line.as_bytes()).rows;
    SiteFacts {
        limits,
        partitions,
        qos: Ok(Vec::new()),
        associations: Ok(vec![Association {
            cluster: "dev".to_owned(),
            account: "lab".to_owned(),
            max_submit: Some(50),
            ..Association::default()
        }]),
        groups: Vec::new(),
        accounting_error: None,
    }
}

#[track_caller]
fn check(facts: &SiteFacts, topic: &str, level: Level, line: Option<&str>) {
    let all = findings(facts);
    let found =
        all.iter().find(|it| it.topic == topic).unwrap_or_else(|| panic!("{topic}: {all:#?}"));
    assert_eq!((found.level, found.slurm_conf.as_deref()), (level, line), "{found:#?}");
}

#[test]
fn a_good_site_is_well() {
    let facts = site(
        "MaxArraySize = 10001\nJobRequeue = 1\nPreemptType = preempt/none\nKillWait = 30 sec\n",
        "",
    );
    let all = findings(&facts);
    assert!(all.iter().all(|it| it.level == Level::Ok), "{all:#?}");
    assert!(promises(&facts).iter().all(|it| it.holds == Some(true)));
}

#[test]
fn each_setting_that_hurts_is_named_with_its_line() {
    use Level::{Advice, Problem};
    let by_partition = "PreemptType = preempt/partition_prio\n";
    let facts = site(by_partition, "PreemptMode=REQUEUE GraceTime=0");
    check(&facts, "preemption", Advice, Some("PartitionName=main … GraceTime=120"));
    assert_eq!(promises(&facts)[0].holds, Some(false));
    let facts = site(by_partition, "PreemptMode=REQUEUE GraceTime=120");
    check(&facts, "preemption", Level::Ok, None);
    check(&facts, "user signal", Advice, Some("PreemptParameters=send_user_signal"));
    let old = format!("SLURM_VERSION = 22.05.8\n{by_partition}");
    let facts = site(&old, "PreemptMode=CANCEL GraceTime=120");
    check(&facts, "user signal", Advice, Some("SlurmctldParameters=preempt_send_user_signal"));
    let facts = site(
        "MinJobAge = 10 sec\nJobRequeue = 0\nMaxArraySize = 100\nKillWait = 5 sec\nAccountingStorageType = (null)\nJobAcctGatherType = jobacct_gather/none\nSLURM_VERSION = 20.11.9\n",
        "",
    );
    check(&facts, "job age", Advice, Some("MinJobAge=300"));
    check(&facts, "requeue", Advice, Some("JobRequeue=1"));
    check(&facts, "arrays", Advice, Some("MaxArraySize=10001"));
    check(&facts, "kill wait", Advice, Some("KillWait=30"));
    check(&facts, "memory", Advice, Some("JobAcctGatherType=jobacct_gather/cgroup"));
    check(&facts, "accounting", Advice, Some("AccountingStorageType=accounting_storage/slurmdbd"));
    check(&facts, "version", Advice, None);
    assert_eq!(promises(&facts)[2].holds, Some(false));
    let mut facts = site("AccountingStorageEnforce = associations,limits,qos\n", "");
    check(&facts, "limits", Advice, None);
    facts.associations.as_mut().unwrap()[0].max_submit = None;
    check(&facts, "limits", Level::Ok, None);
    let (cluster, account) = ("dev".to_owned(), "lab".to_owned());
    facts.groups = vec![AccountGroup { cluster, account, parent: None, max_submit: Some(20) }];
    check(&facts, "limits", Advice, None);
    facts.associations = Ok(Vec::new());
    check(&facts, "limits", Problem, None);
    facts.partitions[0].up = false;
    check(&facts, "partitions", Problem, None);
    facts.accounting_error = Some("down".to_owned());
    check(&facts, "accounting", Problem, None);
}

#[test]
fn a_qos_that_others_preempt_has_a_grace_of_its_own() {
    let mut facts = site("PreemptType = preempt/qos\nPreemptMode = REQUEUE\n", "GraceTime=0");
    let qos = |name: &str, preempts: &[&str]| Qos {
        name: name.to_owned(),
        preempts: preempts.iter().map(ToString::to_string).collect(),
        preempt_mode: "cluster".to_owned(),
        ..Qos::default()
    };
    facts.qos = Ok(vec![qos("normal", &[]), qos("urgent", &["scavenge"]), qos("scavenge", &[])]);
    check(&facts, "preemption", Level::Advice, None);
    let all = findings(&facts);
    let command = "sacctmgr modify qos scavenge set GraceTime=120";
    assert!(all.iter().any(|it| it.administrator.as_deref() == Some(command)), "{all:#?}");
}
