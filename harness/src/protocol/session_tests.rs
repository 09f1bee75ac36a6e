//! Conversations, without a socket.

use super::super::message::parse;
use super::*;

const S: Duration = Duration::from_secs(1);

fn session(every: SavePeriod) -> Session {
    Session::new(SessionConfig { resumed: Some(10), every, ..SessionConfig::default() })
}

fn tell(session: &mut Session, text: &str, at: u64) -> Vec<MessageEffect> {
    session.handle(parse(text.as_bytes()), S * u32::try_from(at).unwrap())
}

#[test]
fn steps_never_go_back() {
    let mut session = session(SavePeriod::Never);
    assert!(!session.is_ready);
    tell(&mut session, "STEP=12", 1);
    tell(&mut session, "STEP=11", 2);
    assert_eq!((session.step, session.is_ready), (Some(12), true));
}

#[test]
fn a_repeated_message_is_dropped_and_a_late_one_is_not() {
    let mut session = session(SavePeriod::Never);
    let report = |number: u64| format!("ID=a\nSEQ={number}\nSTEP=11\nMETRICS={{\"l\":{number}}}");
    assert_eq!(tell(&mut session, &report(2), 1).len(), 1);
    assert_eq!(tell(&mut session, &report(2), 1).len(), 0);
    assert_eq!(tell(&mut session, &report(1), 1).len(), 1);
    assert_eq!(tell(&mut session, &report(1).replace("ID=a", "ID=b"), 1).len(), 1);
    for number in 3..1000 {
        assert_eq!(tell(&mut session, &report(number), 1).len(), 1);
    }
    assert_eq!(tell(&mut session, &report(5), 1).len(), 0, "older than what is remembered");
}

#[test]
fn a_question_that_is_repeated_is_answered_again() {
    let mut session = session(SavePeriod::Never);
    tell(&mut session, "WORKLOADS={\"total\":20,\"unit\":4}", 1);
    for _ in 0..2 {
        let heard = tell(&mut session, "ID=a\nSEQ=1\nNEXT=1", 1);
        assert_eq!(heard, [MessageEffect::Answer("WORKLOAD=train\nSTEPS=4\nSEQ=1\n".into())]);
    }
    tell(&mut session, "ID=a\nSEQ=2\nDID=train:4\nSTEP=14", 1);
    session.set_stop(Some((SaveReason::Preempted, None)));
    let heard = tell(&mut session, "NEXT=1", 1);
    assert_eq!(heard, [MessageEffect::Answer("WORKLOAD=checkpoint\n".into())]);
    session.committed(14, S, S);
    assert_eq!(tell(&mut session, "NEXT=1", 1), [MessageEffect::Answer("WORKLOAD=stop\n".into())]);
}

#[test]
fn a_request_to_save_lasts_until_a_checkpoint_is_complete() {
    let mut session = session(SavePeriod::Never);
    assert_eq!(session.text(), "STATE=1\nSAVE=0\nSTOP=0\nCOMMITTED=10\n");
    session.request_save(SaveReason::Unknown, Time::ZERO);
    let first = session.text();
    session.request_save(SaveReason::Unknown, Time::ZERO);
    assert_eq!(session.text(), first, "asking twice changes nothing");
    assert!(first.contains("SAVE=1\nSTOP=0\nREASON=unknown"), "{first}");
    session.set_stop(Some((SaveReason::Preempted, Some(1000.4))));
    assert!(session.text().contains("SAVE=1\nSTOP=1\nREASON=preempted\nDEADLINE=1000\n"));
    let heard = tell(&mut session, "CKPT_DONE=step-12\nSTEP=12", 1);
    assert_eq!(heard, [MessageEffect::Complete { name: b"step-12".to_vec(), step: Some(12) }]);
    assert!(session.text().contains("SAVE=0\nSTOP=1"));
    session.committed(12, S, S);
    assert!(session.text().contains("COMMITTED=12"));
    session.request_save(SaveReason::Interval, Time::ZERO);
    assert!(session.text().contains("SAVE=2"));
}

#[test]
fn saves_are_measured() {
    let mut session = session(SavePeriod::Never);
    tell(&mut session, "SAVE=begin\nSTEP=12", 3);
    tell(&mut session, "SAVE=end\nSTEP=12", 5);
    tell(&mut session, "SAVE=end\nSTEP=12", 9); // a repeat
    tell(&mut session, "SAVE=begin", 10);
    tell(&mut session, "CKPT_DONE=x\nSTEP=14", 11);
    assert_eq!((session.cost(12), session.cost(14)), (Some(S * 2), Some(S)));
    assert_eq!(session.saved_for, Some(S * 3));
}

#[test]
fn saves_by_time_are_due_after_the_last_one() {
    let mut session = session(SavePeriod::Time(S * 60));
    assert_eq!(session.save_due_at(), None);
    tell(&mut session, "READY=1", 5);
    assert_eq!(session.save_due_at(), Some(S * 65));
    session.tick(S * 64);
    assert!(session.text().contains("SAVE=0"));
    session.tick(S * 65);
    assert!(session.text().contains("SAVE=1\nSTOP=0\nREASON=interval"));
    assert_eq!(session.save_due_at(), None);
    session.committed(12, S * 70, S * 70);
    assert_eq!(session.save_due_at(), Some(S * 130));
}

#[test]
fn saves_by_steps_lie_on_a_grid() {
    let mut session = session(SavePeriod::Steps(8));
    tell(&mut session, "STEP=15", 1);
    session.tick(S);
    assert!(session.text().contains("SAVE=0"));
    tell(&mut session, "STEP=17", 1);
    session.tick(S);
    assert!(session.text().contains("SAVE=1"));
    session.committed(17, S, S);
    session.tick(S);
    assert!(session.text().contains("SAVE=0"));
}

#[test]
fn the_best_validation_is_kept_where_that_is_asked_for() {
    let metric = MetricSpec { name: "acc".into(), larger_is_better: true };
    let settings =
        SessionConfig { metric: Some(metric), best: Some(0.5), ..SessionConfig::default() };
    let mut session = Session::new(settings);
    let plan = r#"WORKLOADS={"total":9,"unit":1,"validate_every":1,"checkpoint_best":true}"#;
    tell(&mut session, plan, 1);
    tell(&mut session, "DID=train:1\nSTEP=1", 1);
    tell(&mut session, "STEP=1\nVALIDATION={\"acc\":0.4}\nDID=validate", 1);
    assert!(
        matches!(&tell(&mut session, "NEXT=1", 1)[0], MessageEffect::Answer(text) if text.contains("train"))
    );
    tell(&mut session, "DID=train:1\nSTEP=2", 1);
    tell(&mut session, "STEP=2\nVALIDATION={\"acc\":0.6}\nDID=validate", 1);
    assert!(
        matches!(&tell(&mut session, "NEXT=1", 1)[0], MessageEffect::Answer(text) if text.contains("checkpoint"))
    );
}

proptest::proptest! {
    #[test]
    fn no_conversation_breaks_it(texts: Vec<String>, requests: Vec<bool>) {
        let mut session = session(SavePeriod::Steps(3));
        for (at, text) in texts.iter().enumerate() {
            session.handle(parse(text.as_bytes()), S * u32::try_from(at).unwrap());
            session.tick(S);
        }
        for request in requests {
            if request { session.request_save(SaveReason::Interval, S) } else { session.committed(3, S, S) }
            proptest::prop_assert!(session.text().starts_with("STATE="));
        }
    }
}
