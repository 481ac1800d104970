//! Links between pages lead somewhere.

use std::{fs, path::Path};

#[test]
fn every_link_to_a_file_of_the_project_leads_to_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = walkdir::WalkDir::new(root.join("docs")).into_iter().map(|entry| entry.unwrap().into_path());
    let pages = docs.chain(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    let mut links = 0;
    for page in pages.filter(|path| path.extension().is_some_and(|ending| ending == "md")) {
        let text = fs::read_to_string(&page).unwrap();
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap();
            if !target.is_empty() && !target.contains("://") {
                links += 1;
                assert!(page.parent().unwrap().join(target).exists(), "{}: {target}", page.display());
            }
        }
    }
    assert!(links > 20, "only {links} links");
}
