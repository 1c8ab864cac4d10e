//! Files of rows that people hand in: CSV with a line of names first, or JSON.

use serde::de::DeserializeOwned;

/// Whether a file is JSON.
pub(super) fn are_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '['])
}

/// The rows of a JSON list, or of the list of this name in an object; each with its place, for messages.
pub(super) fn of_json<T: DeserializeOwned>(text: &str, list: &str) -> Result<Vec<(String, T)>, String> {
    use serde_json::Value;
    let rows = match serde_json::from_str(text).map_err(|error| error.to_string())? {
        Value::Array(rows) => Some(rows),
        Value::Object(mut document) => match document.remove(list) {
            Some(Value::Array(rows)) => Some(rows),
            _ => None,
        },
        _ => None,
    };
    let rows = rows.ok_or_else(|| format!("it is neither a list of entries nor an object with `{list}`"))?;
    let row = |(at, row): (usize, Value)| {
        let place = format!("entry {}", at + 1);
        serde_json::from_value(row).map(|row| (place.clone(), row)).map_err(|error| format!("{place}: {error}"))
    };
    rows.into_iter().enumerate().map(row).collect()
}

/// The rows of a CSV file, each with its place; `set` takes in a cell that is not empty, by the name of its column.
pub(super) fn of_csv<T: Default>(
    text: &str,
    columns: &[&str],
    set: impl Fn(&mut T, &str, &str) -> Result<(), String>,
) -> Result<Vec<(String, T)>, String> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let cells = |line: &str| -> Vec<String> {
        line.trim_start_matches('\u{feff}')
            .split([',', ';'])
            .map(|cell| cell.trim().trim_matches('"').to_owned())
            .collect()
    };
    let names = lines.next().map(|(_, line)| cells(line)).unwrap_or_default();
    if let Some(name) = names.iter().find(|name| !columns.contains(&name.as_str())) {
        return Err(format!("line 1: `{name}` is no column; the first line names them: {}", columns.join(",")));
    }
    let mut rows = Vec::new();
    for (number, line) in lines {
        let (place, cells) = (format!("line {}", number + 1), cells(line));
        if cells.len() > names.len() {
            return Err(format!("{place}: it has {} cells, and there are {} columns", cells.len(), names.len()));
        }
        let mut row = T::default();
        for (name, cell) in names.iter().zip(cells).filter(|(_, cell)| !cell.is_empty()) {
            set(&mut row, name, &cell).map_err(|error| format!("{place}: {name}: {error}"))?;
        }
        rows.push((place, row));
    }
    Ok(rows)
}
