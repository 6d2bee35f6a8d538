//! The query options of a list: `$filter`, `$orderby`, `$top`, `$skip`, `$count`.

use super::exchange::query_of;
use super::filter::{Column, Filter, Mistake, Row, column};

/// The largest `$top` (API/get-machineactions-collection.md, API/get-machines.md).
const TOP_MAX: usize = 10_000;

/// The options of one list call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    filter: Option<Filter>,
    order: Option<Order>,
    top: Option<usize>,
    skip: usize,
    /// `$count=true`: the answer carries `@odata.count`.
    pub(super) count: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Order {
    column: &'static str,
    descending: bool,
}

/// What a list call returns.
#[derive(Debug)]
pub(super) struct Page<R> {
    pub(super) rows: Vec<R>,
    /// How many rows the filter let through, whatever the page holds.
    pub(super) total: usize,
    /// The query of the next page, where the server cut this one.
    pub(super) next: Option<String>,
}

impl Options {
    /// Reads the options. Names that begin with `$` and are unknown are errors (observed for the
    /// misprinted `$stop`, microsoft-365-docs issue 12682); other names are ignored.
    pub(super) fn parse(query: &[(String, String)], columns: &'static [Column]) -> Result<Self, Mistake> {
        let mut options = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in query {
            if !name.starts_with('$') {
                continue;
            }
            if seen.contains(&name.as_str()) {
                return Err(invalid(&format!("Query option '{name}' was specified more than once.")));
            }
            seen.push(name);
            match name.as_str() {
                "$filter" => options.filter = Some(Filter::parse(value, columns)?),
                "$orderby" => options.order = Some(Order::parse(value, columns)?),
                "$top" => options.top = Some(top(value)?),
                "$skip" => options.skip = number(name, value)?,
                "$count" => {
                    options.count = match value.as_str() {
                        "true" => true,
                        "false" => false,
                        _ => {
                            return Err(invalid(&format!("Invalid value '{value}' for '$count'.")));
                        }
                    }
                }
                _ => {
                    return Err(invalid(&format!(
                        "Custom query option '{name}' that starts with '$' is not supported."
                    )));
                }
            }
        }
        Ok(options)
    }

    /// Applies the options to rows in their default order. `query` is what the options were read
    /// from; the next page's is made of it.
    pub(super) fn select<R: Row>(
        &self,
        rows: impl Iterator<Item = R>,
        page_size: usize,
        query: &[(String, String)],
    ) -> Page<R> {
        let mut rows: Vec<R> = rows.filter(|row| self.filter.as_ref().is_none_or(|filter| filter.holds(row))).collect();
        if let Some(order) = self.order {
            rows.sort_by(|a, b| {
                let ordering = a.cell(order.column).cmp(&b.cell(order.column));
                if order.descending { ordering.reverse() } else { ordering }
            });
        }
        let total = rows.len();
        let wanted = self.top.unwrap_or(usize::MAX);
        let size = wanted.min(page_size.max(1));
        let rows: Vec<R> = rows.into_iter().skip(self.skip).take(size).collect();
        let reached = self.skip.saturating_add(rows.len());
        let cut = wanted > rows.len() && reached < total;
        let next = cut.then(|| self.next_query(query, rows.len()));
        Page { rows, total, next }
    }

    fn next_query(&self, query: &[(String, String)], returned: usize) -> String {
        let mut pairs: Vec<(String, String)> =
            query.iter().filter(|(name, _)| name != "$skip" && name != "$top").cloned().collect();
        if let Some(top) = self.top {
            pairs.push(("$top".to_owned(), top.saturating_sub(returned).to_string()));
        }
        pairs.push(("$skip".to_owned(), self.skip.saturating_add(returned).to_string()));
        query_of(&pairs)
    }
}

impl Order {
    fn parse(text: &str, columns: &'static [Column]) -> Result<Self, Mistake> {
        let mut words = text.split_whitespace();
        let column = column(words.next().unwrap_or_default(), columns)?;
        let descending = match words.next() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(word) => return Err(invalid(&format!("Syntax error at '{word}' in '$orderby'."))),
        };
        match words.next() {
            None => Ok(Self { column: column.name, descending }),
            Some(word) => Err(invalid(&format!("Syntax error at '{word}' in '$orderby'."))),
        }
    }
}

fn top(value: &str) -> Result<usize, Mistake> {
    let top = number("$top", value)?;
    if top > TOP_MAX {
        return Err(invalid(&format!(
            "The limit of '{TOP_MAX}' for Top query has been exceeded. The value from the incoming request is '{top}'."
        )));
    }
    Ok(top)
}

fn number(name: &str, value: &str) -> Result<usize, Mistake> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    value.parse().ok().filter(|_| digits).ok_or_else(|| {
        invalid(&format!(
            "Invalid value '{value}' for '{name}' query option found. A non-negative integer is required."
        ))
    })
}

fn invalid(reason: &str) -> Mistake {
    Mistake(format!("The query specified in the URI is not valid. {reason}"))
}

#[cfg(test)]
mod tests {
    use super::super::exchange::form_pairs;
    use super::super::filter::Cell;
    use super::*;

    const COLUMNS: &[Column] = &[Column { name: "id", is_time: false }];

    impl Row for &'static str {
        fn cell(&self, _: &'static str) -> Cell<'_> {
            Cell::Text(self)
        }
    }

    fn select(query: &str, page_size: usize) -> Result<Page<&'static str>, Mistake> {
        let query = form_pairs(query);
        let options = Options::parse(&query, COLUMNS)?;
        Ok(options.select(["b", "d", "a", "c", "e"].into_iter(), page_size, &query))
    }

    #[test]
    fn rows_are_filtered_ordered_and_cut() {
        let page = select("", 10).unwrap();
        assert_eq!((page.rows, page.total, page.next), (vec!["b", "d", "a", "c", "e"], 5, None));
        assert_eq!(select("$orderby=id", 10).unwrap().rows, ["a", "b", "c", "d", "e"]);
        assert_eq!(select("$orderby=id+desc&$top=2&$skip=1", 10).unwrap().rows, ["d", "c"]);
        let page = select("$filter=id%20gt%20%27b%27&$top=1&other=x", 10).unwrap();
        assert_eq!((page.rows, page.total, page.next), (vec!["d"], 3, None));
        assert_eq!(select("$top=0", 10).unwrap().rows.len(), 0);
        assert_eq!(select("$skip=9", 10).unwrap().rows.len(), 0);
    }

    #[test]
    fn links_lead_through_every_row_once() {
        for query in ["$orderby=id%20asc&$filter=id%20ne%20%27c%27", "$top=4&$orderby=id&$filter=id%20ne%20%27c%27"] {
            let (mut rows, mut next) = (Vec::new(), Some(query.to_owned()));
            while let Some(query) = next {
                let page = select(&query, 3).unwrap();
                rows.extend(page.rows);
                next = page.next;
            }
            assert_eq!(rows, ["a", "b", "d", "e"], "{query}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for query in [
            "$stop=2",
            "$top=10001",
            "$top=-1",
            "$top=+1",
            "$top=",
            "$skip=x",
            "$count=yes",
            "$orderby=ID",
            "$orderby=id%20down",
            "$orderby=id%20asc%20x",
            "$expand=a",
            "$top=1&$top=2",
            "$filter=",
        ] {
            assert!(select(query, 10).is_err(), "{query}");
        }
        let Mistake(message) = select("$stop=2", 10).unwrap_err();
        assert!(message.ends_with("Custom query option '$stop' that starts with '$' is not supported."));
    }
}
