//! The declarations are those of `kvlane.h`: the names are the same, and a C program that the test generates
//! from the declarations compiles, which states sizes, offsets, types, values and signatures to the C compiler.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, process};

use super::*;

pub(crate) struct Struct {
    pub(crate) name: &'static str,
    pub(crate) size: usize,
    pub(crate) fields: Vec<Field>,
}

pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) type_name: &'static str,
    pub(crate) offset: usize,
}

pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) parameters: &'static [&'static str],
    pub(crate) result: &'static str, // "": none
}

fn include_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../include")
}

/// The header without comments.
fn header() -> String {
    let mut rest = fs::read_to_string(include_directory().join("kvlane/kvlane.h")).unwrap();
    let mut text = String::new();
    while let Some(begin) = rest.find("/*").into_iter().chain(rest.find("//")).min() {
        text.push_str(&rest[..begin]);
        let end = if rest[begin..].starts_with("/*") { "*/" } else { "\n" };
        rest = rest[begin..].split_once(end).expect("an unfinished comment").1.to_string();
        text.push('\n');
    }
    text + &rest
}

/// The identifiers of a text, in order.
fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The names of the fields of each struct of the header, in order.
fn structs_of(header: &str) -> Vec<(String, Vec<String>)> {
    let definitions = header.split("typedef struct ").skip(1).filter_map(|text| text.split_once('{'));
    definitions
        .filter(|(name, _)| !name.contains(';'))
        .map(|(name, rest)| {
            let body = rest.split_once('}').expect("an unfinished struct").0;
            let fields = body.split(';').filter_map(|field| identifiers(field).last()).map(String::from);
            (name.trim().to_string(), fields.collect())
        })
        .collect()
}

#[test]
fn the_names_are_those_of_the_header() {
    let mut declared: BTreeSet<&str> = OPAQUE_TYPES.iter().copied().collect();
    declared.extend(CONSTANTS.iter().map(|(name, _)| *name));
    declared.extend(ALIASES.iter().map(|(name, _)| *name));
    declared.extend(CALLBACKS.iter().map(|(name, _)| *name));
    declared.extend(structs().iter().map(|s| s.name));
    declared.extend(FUNCTIONS.iter().map(|f| f.name));
    let header = header();
    let names: BTreeSet<&str> = identifiers(&header)
        .filter(|name| name.starts_with("kvl_") || name.starts_with("KVL_"))
        .map(|name| name.strip_suffix("_init").unwrap_or(name)) // of a struct, whose default it is
        .filter(|name| *name != "KVL_API")
        .chain(["kvl_task"]) // which the header spells out where it is used
        .collect();
    let missing: Vec<_> = names.difference(&declared).collect();
    let unknown: Vec<_> = declared.difference(&names).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "not in Rust: {missing:?}; not in the header: {unknown:?}"
    );
}

#[test]
fn structs_have_the_fields_of_the_header() {
    let declared = structs().into_iter().map(|s| {
        let fields = s.fields.iter().map(|field| field.name.to_string());
        (s.name.to_string(), fields.collect::<Vec<_>>())
    });
    assert_eq!(declared.collect::<Vec<_>>(), structs_of(&header()));
}

/// A type of the declarations in C: `*const *mut T` is `T * const *`.
fn c_type(rust: &str) -> String {
    if let Some(target) = rust.strip_prefix("*const ") {
        return format!("{} const *", c_type(target));
    }
    if let Some(target) = rust.strip_prefix("*mut ") {
        return format!("{} *", c_type(target));
    }
    let name = match rust {
        "c_char" => "char",
        "c_int" => "int",
        "c_uint" => "unsigned",
        "c_void" | "" => "void",
        "f32" => "float",
        "i32" => "int32_t",
        "i64" => "int64_t",
        "u8" => "uint8_t",
        "u32" => "uint32_t",
        "u64" => "uint64_t",
        "usize" => "size_t",
        name if name.starts_with("kvl_") => name,
        other => panic!("what is {other} in C?"),
    };
    name.to_string()
}

fn c_parameters(types: &[&str]) -> String {
    let parameters: Vec<_> = types.iter().map(|name| c_type(name)).collect();
    if parameters.is_empty() {
        "void".to_string()
    } else {
        parameters.join(", ")
    }
}

/// A statement that the compiler refuses unless the condition holds.
fn c_assert(condition: String, what: String) -> String {
    format!("_Static_assert({condition}, \"{what}\");\n")
}

fn c_assert_type(expression: String, name: &str, what: String) -> String {
    c_assert(
        format!("_Generic({expression}, {name}: 1, default: 0)"),
        format!("the type of {what} is not {name}"),
    )
}

/// The C program that states the declarations.
fn program() -> String {
    let mut text = "#include <kvlane/kvlane.h>\n".to_string();
    for (name, value) in CONSTANTS {
        text += &c_assert(format!("{name} == {value}"), format!("{name} is not {value}"));
    }
    for (name, type_name) in ALIASES {
        text += &c_assert_type(format!("({name})0"), &c_type(type_name), name.to_string());
    }
    for (name, parameters) in CALLBACKS {
        // Equal to the header's, if that has the name: C11 allows typedefs to be repeated.
        text += &format!("typedef void (*{name})({});\n", c_parameters(parameters));
    }
    for s in structs() {
        text += &c_assert(
            format!("sizeof({}) == {}", s.name, s.size),
            format!("the size of {} is not {}", s.name, s.size),
        );
        for field in &s.fields {
            let path = format!("{}.{}", s.name, field.name);
            let offset = format!("offsetof({}, {}) == {}", s.name, field.name, field.offset);
            text += &c_assert(offset, format!("the offset of {path} is not {}", field.offset));
            text +=
                &c_assert_type(format!("(({} *)0)->{}", s.name, field.name), &c_type(field.type_name), path);
        }
    }
    for function in FUNCTIONS {
        let (name, parameters) = (function.name, c_parameters(function.parameters));
        text += &format!("{} {name}({parameters});\n", c_type(function.result));
    }
    text
}

#[test]
fn the_c_compiler_agrees() {
    let source = env::temp_dir().join(format!("kvlane-sys-{}.c", process::id()));
    fs::write(&source, program()).unwrap();
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_string());
    let output = Command::new(&compiler)
        .args(["-std=c11", "-fsyntax-only", "-I"])
        .arg(include_directory())
        .arg(&source)
        .output()
        .unwrap_or_else(|error| panic!("{compiler}: {error}; set CC to a C compiler"));
    fs::remove_file(&source).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_library_is_of_the_declared_version() {
    // Safety: the function returns a string that lives as long as the program.
    let version = unsafe { std::ffi::CStr::from_ptr(kvl_version()) };
    let declared = format!("{KVL_VERSION_MAJOR}.{KVL_VERSION_MINOR}.{KVL_VERSION_PATCH}");
    assert_eq!(version.to_str().unwrap(), declared);
    assert_eq!(env!("CARGO_PKG_VERSION"), declared);
}
