//! The identity of things by their content: SHA-256 over parts, each with its length, so that no two lists of parts are
//! one text.

use std::fs::File;
use std::path::Path;

use candle_core::{Error, Result};
use sha2::{Digest as _, Sha256};

/// A running hash.
#[derive(Clone, Default)]
pub struct Digest(Sha256);

impl Digest {
    /// The hash of these parts.
    pub fn of(parts: &[&[u8]]) -> String {
        parts.iter().fold(Self::default(), |digest, part| digest.part(part)).hex()
    }

    /// With one part more.
    pub fn part(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// 64 hexadecimal digits.
    pub fn hex(self) -> String {
        hex(self.0)
    }
}

/// The SHA-256 of a file's bytes, in hexadecimal digits.
///
/// # Errors
/// If it cannot be read.
pub fn of_file(path: &Path) -> Result<String> {
    let failed = |e: std::io::Error| Error::Msg(format!("{}: {e}", path.display()));
    let (mut file, mut hash) = (File::open(path).map_err(failed)?, Sha256::new());
    std::io::copy(&mut file, &mut hash).map_err(failed)?;
    Ok(hex(hash))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::Digest;

    #[test]
    fn where_one_part_ends_is_part_of_it() {
        assert_ne!(Digest::of(&[b"ab", b"c"]), Digest::of(&[b"a", b"bc"]));
        assert_eq!(Digest::of(&[b"ab"]), Digest::default().part(b"ab").hex());
        assert_eq!(Digest::of(&[]), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"); // of nothing
    }
}
