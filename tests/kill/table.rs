//! What came of it, for people to read.

use std::fmt;

/// What was counted of one operation.
pub(super) trait Row {
    fn operation(&self) -> String;
    /// Heads of columns, and what stands below each.
    fn cells(&self) -> Vec<(&'static str, usize)>;
}

#[derive(Debug)]
pub(super) struct Table<R>(Vec<R>);

impl<R> Table<R> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn push(&mut self, row: R) {
        self.0.push(row);
    }
}

impl<R: Row> fmt::Display for Table<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, row) in self.0.iter().enumerate() {
            let cells = row.cells();
            if number == 0 {
                write!(f, "{:<34}", "")?;
                cells.iter().try_for_each(|(head, _)| write!(f, "  {head}"))?;
                writeln!(f)?;
            }
            write!(f, "{:<34}", row.operation())?;
            for (head, cell) in cells {
                write!(f, "  {cell:>width$}", width = head.len())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
