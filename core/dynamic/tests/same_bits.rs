//! Every built-in scalar plugin, and plugins that wrap them, loaded from libraries: they answer as they do linked in, to the
//! bit, and go on from what they learned.

mod common;

use std::process::Command;

#[test]
fn loaded_plugins_answer_as_linked_ones_do() {
    let fixture = common::fixture();
    let linked = Command::new(&fixture.linked).output().expect("the program runs");
    assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
    let linked = String::from_utf8(linked.stdout).expect("text");

    // The wrapping ones name some of the others in their defaults.
    sconce_dynamic::load(&fixture.built_in).unwrap_or_else(|e| panic!("{e}"));
    sconce_dynamic::load(&fixture.odd).unwrap_or_else(|e| panic!("{e}"));
    let loaded = common::probe::everything();
    for (linked, loaded) in linked.lines().zip(loaded.lines()) {
        assert_eq!(linked, loaded);
    }
    assert_eq!(linked.lines().count(), loaded.lines().count());
    assert_eq!(sconce_sdk::health::take(), None, "nothing that is as it should be is told of");
    assert!(linked.lines().count() > 200, "all of them are there: {}", linked.lines().count());
}

#[test]
fn they_keep_the_laws() {
    let fixture = common::fixture();
    for path in [&fixture.built_in, &fixture.odd] {
        let library = sconce_dynamic::load(path).unwrap_or_else(|e| panic!("{e}"));
        let checked = library.check_laws().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(checked.len(), library.plugins().count());
        for (plugin, checked) in checked {
            assert!(!checked.tables.is_empty(), "{} was tried", plugin.name);
            let native = checked.tables.iter().any(|table| table.contains("native"));
            let unusual = checked.notes.iter().any(|note| !note.starts_with("slow"));
            assert_eq!(unusual, native, "{} {}: {:?}", plugin.kind, plugin.name, checked);
        }
    }
    assert_eq!(sconce_sdk::health::take(), None);
}
