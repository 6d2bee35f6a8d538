//! In which of its two text formats a scraper reads the metrics: `OpenMetrics` where it says that it knows that,
//! else the older one, which everything else reads.

use axum::http::{HeaderMap, header};

/// What a scraper reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// `OpenMetrics`, which Prometheus asks for.
    Open,
    /// The text format 0.0.4.
    Text,
}

impl Exposition {
    /// What whoever sends these headers reads.
    pub fn wanted(asked: &HeaderMap) -> Self {
        let accepts = asked.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let open = accepts.flat_map(|value| value.split(',')).any(|one| {
            let mut parts = one.split(';').map(str::trim);
            let is_open = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
            is_open && !parts.any(|part| matches!(part, "q=0" | "q=0.0"))
        });
        if open { Self::Open } else { Self::Text }
    }

    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Open => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// What was written as `OpenMetrics`, in this format.
    pub fn of(self, open: String) -> String {
        match self {
            Self::Open => open,
            Self::Text => older(&open),
        }
    }
}

/// The samples are the same. What stands before them names them as they are, and knows neither `info` nor an end.
fn older(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    let mut help = "";
    for line in open.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(_), said) => help = said.unwrap_or_default(),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (ending, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    other => ("", other),
                };
                text += &format!("# HELP {name}{ending} {help}\n# TYPE {name}{ending} {kind}\n");
            }
            (Some("#"), ..) => {}
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn open_metrics_is_for_whoever_asks_for_it() {
        let wanted = |accepts: &[&'static str]| {
            let mut asked = HeaderMap::new();
            for accept in accepts {
                asked.append(header::ACCEPT, HeaderValue::from_static(accept));
            }
            Exposition::wanted(&asked)
        };
        let prometheus =
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;q=0.5,*/*;q=0.2";
        for open in [&[prometheus][..], &["text/plain", "Application/OpenMetrics-Text"]] {
            assert_eq!(wanted(open), Exposition::Open, "{open:?}");
        }
        for text in [&[][..], &["*/*"], &["text/plain"], &["application/openmetrics-text;q=0, text/plain"]] {
            assert_eq!(wanted(text), Exposition::Text, "{text:?}");
        }
    }

    #[test]
    fn the_older_format_names_what_it_counts() {
        let open = "# HELP a_calls Calls to somebody.\n# TYPE a_calls counter\na_calls_total{of=\"# x\"} 1\n\
                    # HELP a_build The program.\n# TYPE a_build info\na_build_info{version=\"1\"} 1\n\
                    # HELP a Something.\n# TYPE a gauge\na 2\n# EOF\n";
        let text = "# HELP a_calls_total Calls to somebody.\n# TYPE a_calls_total counter\na_calls_total{of=\"# x\"} 1\n\
                    # HELP a_build_info The program.\n# TYPE a_build_info gauge\na_build_info{version=\"1\"} 1\n\
                    # HELP a Something.\n# TYPE a gauge\na 2\n";
        assert_eq!(older(open), text);
        assert_eq!(Exposition::Open.of(open.to_owned()), open);
    }
}
