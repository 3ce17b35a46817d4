//! The same tests with a client that accepts JSON and HTTP/1.1 alone.

use crate::{objects, server};

const FALLBACK: bool = true;

#[path = "../connections.rs"]
mod connections;
#[path = "../damage.rs"]
mod damage;
#[path = "../failures.rs"]
mod failures;
#[path = "../lists.rs"]
mod lists;
#[path = "../older.rs"]
mod older;
#[path = "../seen.rs"]
mod seen;
#[path = "../several.rs"]
mod several;
#[path = "../watches.rs"]
mod watches;
