//! What a program tells the harness while it runs, and what it is answered: `docs/protocol.md`.
//!
//! Nothing rests on one message: what is lost costs a line of metrics, never a checkpoint.

pub(crate) mod workload;

mod message;
mod save_reason;
mod session;
mod socket;

pub(crate) use message::parse;
pub(crate) use save_reason::SaveReason;
pub(crate) use session::{MessageEffect, SavePeriod, Session, SessionConfig};
pub(crate) use socket::{ReceivedDatagram, Socket, prefix};
