//! Which Debian release this machine runs, if it runs one.

use std::fmt;

/// A Debian release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its number; testing and unstable have none.
    pub number: Option<u32>,
    /// Its code name, such as `bookworm`; unstable may have none.
    pub codename: Option<String>,
}

impl Release {
    /// The release of this machine; `None` where it is not Debian.
    pub fn of_this_machine() -> Option<Self> {
        parse(&std::fs::read_to_string("/etc/os-release").ok()?)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(number) => write!(f, "Debian {number}"),
            None => write!(
                f,
                "Debian {}",
                self.codename.as_deref().unwrap_or("unstable")
            ),
        }
    }
}

/// Reads the text of `os-release`.
fn parse(text: &str) -> Option<Release> {
    let value = |key: &str| {
        let of_key = |line: &str| {
            Some(
                line.strip_prefix(key)?
                    .strip_prefix('=')?
                    .trim_matches(['"', '\''])
                    .to_owned(),
            )
        };
        text.lines().find_map(of_key)
    };
    (value("ID")? == "debian").then(|| Release {
        number: value("VERSION_ID").and_then(|number| number.parse().ok()),
        codename: value("VERSION_CODENAME"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debian_release_is_told_from_another_system() {
        let bookworm = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n";
        assert_eq!(
            parse(bookworm),
            Some(Release {
                number: Some(12),
                codename: Some("bookworm".to_owned())
            })
        );
        assert_eq!(
            parse("ID=debian\n"),
            Some(Release {
                number: None,
                codename: None
            })
        );
        assert_eq!(
            parse("ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\n"),
            None
        );
    }
}
