//! Which step a line belongs to, where several steps print at the same time. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::line_text::step_name;

/// Most steps that are followed at the same time; lines of further ones carry no name.
const MOST: usize = 64;

/// The steps of one attempt that began and have not ended.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ConcurrentSteps {
    open: BTreeMap<i32, String>,
    /// The step that began last: its lines follow its heading.
    last: i32,
}

impl ConcurrentSteps {
    /// A step begins, or ends.
    pub fn mark(&mut self, step: i32, name: &str, ended: bool) {
        if ended {
            self.open.remove(&step);
            return;
        }
        self.last = step;
        if self.open.len() < MOST {
            self.open.insert(step, step_name(name).to_owned());
        }
    }

    /// The name to show with a line of a step; `None`: the heading above the line names it.
    pub fn name(&self, step: i32) -> Option<&str> {
        let alone = self.open.len() <= 1 && step == self.last;
        self.open.get(&step).filter(|_| !alone).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_carries_its_step_where_another_could_have_printed_it() {
        let mut concurrent = ConcurrentSteps::default();
        concurrent.mark(0, "Main server", false);
        assert_eq!(concurrent.name(0), None, "it is alone");
        concurrent.mark(1, "Main tests", false);
        assert_eq!((concurrent.name(0), concurrent.name(1)), (Some("server"), Some("tests")));
        concurrent.mark(1, "Main tests", true);
        assert_eq!(
            (concurrent.name(0), concurrent.name(1)),
            (Some("server"), None),
            "the other's heading stands before it"
        );
        concurrent.mark(0, "Main server", true);
        concurrent.mark(2, "Main last", false);
        assert_eq!((concurrent.name(2), concurrent.name(0)), (None, None));
    }
}
