//! Text in columns, for people.

use std::fmt;

/// Writes rows with their cells under each other, two spaces apart; no line ends in spaces.
pub(crate) fn write<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    indent: &str,
    rows: &[[String; N]],
) -> fmt::Result {
    let width = |cell: &str| cell.chars().count();
    let mut widths = [0; N];
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = width(cell).max(*widest);
        }
    }
    for row in rows {
        let mut line = indent.to_owned();
        for (cell, widest) in row.iter().zip(widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', widest.saturating_sub(width(cell)) + 2));
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}
