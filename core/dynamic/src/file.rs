//! What can be known of a file before its code runs. The system's own loader is not to be trusted with any file: one that
//! was cut short ends the program with SIGBUS.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::error::Fault;

/// The largest library that is read.
const MOST: u64 = 1 << 30;

/// A file that looks like a library.
pub struct Looked {
    /// Its whole path.
    pub path: PathBuf,
    /// Of its content.
    pub sha256: String,
    stamp: (u64, Option<SystemTime>),
}

impl Looked {
    /// Looks at a file.
    pub fn at(path: &Path) -> Result<Self, Fault> {
        let unreadable = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => Fault::Missing,
            _ => Fault::Unreadable(e),
        };
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(Fault::NotAFile);
        }
        if metadata.len() > MOST {
            return Err(Fault::TooLarge { bytes: metadata.len(), most: MOST });
        }
        let path = path.canonicalize().map_err(unreadable)?;
        let mut file = File::open(&path).map_err(unreadable)?;
        format(&mut file, metadata.len())?;
        let sha256 = hash(&mut file).map_err(unreadable)?;
        Ok(Self { path, sha256, stamp: stamp(&metadata) })
    }

    /// Fails if the file is another one by now.
    pub fn unchanged(&self) -> Result<(), Fault> {
        let now = std::fs::metadata(&self.path).map_err(|_| Fault::Changed)?;
        if stamp(&now) == self.stamp { Ok(()) } else { Err(Fault::Changed) }
    }
}

fn stamp(metadata: &Metadata) -> (u64, Option<SystemTime>) {
    (metadata.len(), metadata.modified().ok())
}

fn hash(file: &mut File) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Sha256::new();
    io::copy(file, &mut hasher)?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The beginnings of files, and what they are.
const FORMATS: [(&[u8], &str); 6] = [
    (b"\x7fELF", "a library or program of Linux or another Unix (ELF)"),
    (b"MZ", "a library or program of Windows (PE)"),
    (b"\xcf\xfa\xed\xfe", "a library or program of macOS (Mach-O)"),
    (b"\xca\xfe\xba\xbe", "a library or program of macOS (universal Mach-O)"),
    (b"!<arch>\n", "a static library"),
    (b"#!", "a script"),
];

fn format(file: &mut File, bytes: u64) -> Result<(), Fault> {
    let mut start = Vec::new();
    file.by_ref().take(64).read_to_end(&mut start).map_err(Fault::Unreadable)?;
    let known = FORMATS.iter().find(|(magic, _)| start.starts_with(magic));
    let ours = match std::env::consts::OS {
        "windows" => "(PE)",
        "macos" | "ios" => "Mach-O)",
        _ => "(ELF)",
    };
    match known {
        Some((_, what)) if what.ends_with(ours) => {}
        Some((_, what)) => return Err(Fault::NotALibrary((*what).to_owned())),
        None if start.is_empty() => return Err(Fault::NotALibrary("empty".into())),
        None => {
            let text: String = start.iter().take(16).map(|b| b.escape_ascii().to_string()).collect();
            return Err(Fault::NotALibrary(format!("something that begins with \"{text}\"")));
        }
    }
    if ours == "(ELF)" { elf(file, &start, bytes) } else { Ok(()) }
}

/// An ELF file of this machine's, with all of the bytes that its headers speak of.
fn elf(file: &mut File, start: &[u8], bytes: u64) -> Result<(), Fault> {
    let short = |needed| Err(Fault::Truncated { bytes, needed });
    if start.len() < 64 {
        return short(64);
    }
    let half = |at: usize| u16::from_le_bytes([start[at], start[at + 1]]);
    let word = |at: usize| u64::from_le_bytes(start[at..at + 8].try_into().expect("eight bytes are eight bytes"));
    let (bits, little) = (start[4], start[5] == 1);
    let machine = match half(18) {
        3 => "x86",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        _ => "another machine",
    };
    let here = std::env::consts::ARCH;
    let known = ["x86_64", "aarch64", "riscv64"].contains(&here);
    if known && (bits != 2 || !little || machine != here) {
        return Err(Fault::NotALibrary(format!("an ELF file for {machine}, and this is {here}")));
    }
    if bits != 2 || !little {
        return Ok(()); // A machine that this code does not know: the system's loader has the word.
    }
    if half(16) != 3 {
        return Err(Fault::NotALibrary("an ELF file that is not a shared one".into()));
    }
    let (programs, sections) = (word(32), word(40));
    let (program_size, n_programs) = (u64::from(half(54)), u64::from(half(56)));
    let end = |at: u64, size: u64, n: u64| at.saturating_add(size.saturating_mul(n));
    let tables = end(programs, program_size, n_programs).max(end(sections, half(58).into(), half(60).into()));
    if tables > bytes {
        return short(tables);
    }
    let mut needed = 0;
    for i in 0..n_programs {
        let mut header = [0; 56];
        file.seek(SeekFrom::Start(programs + i * program_size)).map_err(Fault::Unreadable)?;
        file.read_exact(&mut header).map_err(Fault::Unreadable)?;
        let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes are eight bytes"));
        needed = needed.max(word(8).saturating_add(word(32)));
    }
    if needed > bytes { short(needed) } else { Ok(()) }
}
