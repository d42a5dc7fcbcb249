//! Declares a `#[repr(C)]` struct once, for Rust and for the C header: the struct itself, and its description, from which
//! [`super::header`] writes C and by which tests compare the layouts that the two compilers made.

/// What the header says of a struct.
#[derive(Debug, Clone, Copy)]
pub struct Description {
    /// Its name, in Rust and in C.
    pub name: &'static str,
    /// Its documentation, line by line.
    pub about: &'static [&'static str],
    /// Its fields in order.
    pub fields: &'static [Field],
    /// Its size in bytes.
    pub size: usize,
}

/// A field of a struct.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its documentation, line by line.
    pub about: &'static [&'static str],
    /// Its type as Rust writes it.
    pub rust: &'static str,
    /// Where it is in the struct, in bytes.
    pub offset: usize,
}

/// A struct that is described.
pub trait Described {
    /// The description.
    const DESCRIPTION: Description;
}

macro_rules! c_struct {
    ($(#[doc = $about:literal])* pub struct $name:ident {
        $($(#[doc = $doc:literal])* pub $field:ident: $type:ty,)*
    }) => {
        $(#[doc = $about])*
        #[repr(C)]
        #[derive(Clone, Copy)]
        pub struct $name {
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl $crate::abi::Described for $name {
            const DESCRIPTION: $crate::abi::Description = $crate::abi::Description {
                name: stringify!($name),
                about: &[$($about),*],
                fields: &[$($crate::abi::Field {
                    name: stringify!($field),
                    about: &[$($doc),*],
                    rust: stringify!($type),
                    offset: std::mem::offset_of!($name, $field),
                }),*],
                size: size_of::<$name>(),
            };
        }
    };
}
pub(super) use c_struct;
