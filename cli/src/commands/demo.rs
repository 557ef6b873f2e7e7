//! `bifold demo`.
use crate::args::{Common, Demo};
use crate::exit::Exit;
pub(crate) async fn run(_common: &Common, _demo: Demo) -> Result<(), Exit> {
    Err(Exit::Failed("demo".into()))
}
