//! Notifications: which ends are to be told (`events`, pure), in which words (`message`), what became of them
//! (`record`), and the ways on which they are sent (`send`, an edge).

mod events;
mod message;
mod record;
mod send;

pub use events::{Notice, notices, spent_budgets};
pub use message::message;
pub use record::{Delivery, NoticeRecord, NoticeRecords, Way, failures};
pub use send::deliver;
