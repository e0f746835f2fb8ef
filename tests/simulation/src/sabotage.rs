//! Faults put into the product on purpose, behind its test-only switches, and found or not.

use anyhow::Result;
use store::Store;

use crate::Sabotage;

/// Every third delivery of an event that is to be published is gone at once.
const DROP_OUTBOX_ROWS: &str = "
    CREATE TRIGGER drop_outbox_rows AFTER INSERT ON work WHEN new.kind = 'publish' AND new.sequence % 3 = 0
    BEGIN DELETE FROM work WHERE id = new.id; END;
";
/// No lease lasts longer than it did when it began.
const KEEP_LEASES: &str = "
    CREATE TRIGGER keep_leases BEFORE UPDATE OF expires_at ON leases WHEN new.expires_at > old.expires_at
    BEGIN SELECT RAISE(IGNORE); END;
";

/// Puts a fault in.
pub(crate) fn prepare(store: &Store, sabotage: Option<Sabotage>) -> Result<()> {
    domain::run::testing::set_fenced(sabotage != Some(Sabotage::NoFencing));
    match sabotage {
        Some(Sabotage::OutboxRowDropped) => store.execute_script(DROP_OUTBOX_ROWS)?,
        Some(Sabotage::LeaseNotRenewed) => store.execute_script(KEEP_LEASES)?,
        Some(Sabotage::NoFencing) | None => {}
    }
    Ok(())
}
