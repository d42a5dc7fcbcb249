//! Where models and pictures are: names of the Hub get the prefix by which a recipe tells them from paths.

/// Endings of files that are on a disk.
const FILES: &[&str] = &[".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".sft"];

/// A path or a name on the Hub, as a recipe writes it: `owner/name` is `hf://owner/name`.
pub(crate) fn place(text: &str) -> String {
    let text = text.trim();
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    match text.split_once('/') {
        Some((owner, name)) if !is_file(text) && plain(owner) && plain(name) => format!("hf://{text}"),
        _ => text.to_owned(),
    }
}

/// True for a file of weights, by its ending.
pub(crate) fn is_file(path: &str) -> bool {
    FILES.iter().any(|end| path.ends_with(end))
}

/// True for a path that depends on the folder that a program is started in.
pub(crate) fn relative(path: &str) -> bool {
    let drive = path.as_bytes().get(1) == Some(&b':');
    !path.is_empty() && !path.starts_with(['/', '\\', '~', '$']) && !drive && !path.contains("://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_hub_are_told_from_paths() {
        assert_eq!(place("stabilityai/stable-diffusion-xl-base-1.0"), "hf://stabilityai/stable-diffusion-xl-base-1.0");
        for path in ["./sd/model", "/models/sd", "sd/model.safetensors", "a/b/c", "C:\\a\\b", "model"] {
            assert_eq!(place(path), path);
        }
    }

    #[test]
    fn relative_paths_are_told_from_others() {
        let are = ["a/b", "./a", "model.safetensors"].map(relative);
        let are_not = ["/a", "C:\\a", "C:/a", "~/a", "hf://a/b", ""].map(relative);
        assert_eq!((are, are_not), ([true; 3], [false; 6]));
    }
}
