//! Moves between real metadata databases that Airflow 3.3.2 migrated.
#![allow(missing_docs)]

mod ahead;
mod catalog;
mod copy;
mod cursor;
mod drain;
mod ends;
mod estimate;
mod preflight;
mod removal;
mod timetables;
