//! Rust without its strings and comments, so that rules look at code, or at comments, alone.
//!
//! No parser: it knows where strings, characters and comments begin and end, and nothing else.

/// Text of the same lines as what it was made from; what was masked is spaces.
#[derive(Default)]
pub struct Masked {
    /// Without strings, characters and comments.
    pub code: String,
    /// Without everything but comments.
    pub comments: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Text,
}

impl Masked {
    /// Masks Rust.
    pub fn new(text: &str) -> Self {
        let mut masked = Self::default();
        let mut rest = text;
        let mut behind_word = false;
        while let Some(first) = rest.chars().next() {
            let (kind, bytes) = token(rest, behind_word);
            let (token, after) = rest.split_at_checked(bytes).unwrap_or((rest, ""));
            masked.push(token, kind);
            behind_word = kind == Kind::Code && (first.is_alphanumeric() || first == '_');
            rest = after;
        }
        masked
    }

    fn push(&mut self, token: &str, kind: Kind) {
        for c in token.chars() {
            let blank = if c == '\n' { '\n' } else { ' ' };
            self.code.push(if kind == Kind::Code { c } else { blank });
            self.comments
                .push(if kind == Kind::Comment { c } else { blank });
        }
    }
}

/// What `rest` begins with, and how many bytes it has.
fn token(rest: &str, behind_word: bool) -> (Kind, usize) {
    if rest.starts_with("//") {
        return (Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Kind::Comment, block_comment(rest));
    }
    if let Some(bytes) = raw_string(rest).filter(|_| !behind_word) {
        return (Kind::Text, bytes);
    }
    match rest.chars().next() {
        Some('"') => (
            Kind::Text,
            1 + quoted(rest.get(1..).unwrap_or_default(), '"'),
        ),
        Some('\'') => match character(rest) {
            Some(bytes) => (Kind::Text, bytes),
            None => (Kind::Code, 1),
        },
        first => (Kind::Code, first.map_or(0, char::len_utf8)),
    }
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(here) = rest.get(at..).filter(|here| !here.is_empty()) {
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// `r"…"`, `br#"…"#` and the like.
fn raw_string(rest: &str) -> Option<usize> {
    let behind = ["br", "cr", "r"]
        .into_iter()
        .find_map(|prefix| rest.strip_prefix(prefix))?;
    let inner = behind.trim_start_matches('#');
    let hashes = "#".repeat(behind.len() - inner.len());
    let content = inner.strip_prefix('"')?;
    let end = format!("\"{hashes}");
    let length = content
        .find(&end)
        .map_or(content.len(), |at| at + end.len());
    Some(rest.len() - content.len() + length)
}

/// Bytes until behind the closing quote.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// `'x'` or `'\n'`; `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let inner = rest.get(1..)?;
    let first = inner.chars().next()?;
    if first == '\\' {
        return Some(1 + quoted(inner, '\''));
    }
    let end = first.len_utf8();
    inner.get(end..)?.starts_with('\'').then_some(end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        let masked = Masked::new(text);
        assert_eq!(masked.code.lines().count(), text.lines().count());
        assert_eq!(masked.comments.lines().count(), text.lines().count());
        masked.code.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn strings_and_comments_go_lines_stay() {
        assert_eq!(code("a(\"} // no\"); // {\nb"), "a( ); b");
        assert_eq!(code("a /* x /* y\n */ { */ b"), "a b");
        assert_eq!(code("r#\"a \" b\"# + br\"x\\\" + c"), "+ + c");
        assert_eq!(code("\"a\\\"b\" x"), "x");
        assert_eq!(
            code("f::<'a>('{', '\\'', b'}', 'ä') 'b: loop"),
            "f::<'a>( , , b , ) 'b: loop"
        );
        assert_eq!(
            code("for_r\"x\""),
            "for_r",
            "a word that ends in r begins no raw string"
        );
    }

    #[test]
    fn comments_alone() {
        let masked = Masked::new("a(\"// no\"); // yes\n");
        assert_eq!(masked.comments.trim(), "// yes");
    }

    #[test]
    fn what_never_ends_is_no_harm() {
        for text in ["\"", "'", "/*", "r#\"", "'\\", "/* /*/", "//"] {
            assert_eq!(
                Masked::new(text).code.chars().count(),
                text.chars().count(),
                "{text}"
            );
        }
    }
}
