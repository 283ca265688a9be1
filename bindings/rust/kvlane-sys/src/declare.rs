//! Macros that declare the items of a C header once: for callers, and as tables of names and types that the test compares
//! with the header.

/// Numbers: `#define` or `enum`.
macro_rules! constants {
    ($($(#[$attribute:meta])* pub const $name:ident: $type:ty = $value:expr;)*) => {
        $($(#[$attribute])* pub const $name: $type = $value;)*

        #[cfg(test)]
        pub(crate) const CONSTANTS: &[(&str, i128)] = &[$((stringify!($name), $name as i128)),*];
    };
}

/// Names of other types.
macro_rules! aliases {
    ($($(#[$attribute:meta])* pub type $name:ident = $type:ty;)*) => {
        $($(#[$attribute])* pub type $name = $type;)*

        #[cfg(test)]
        pub(crate) const ALIASES: &[(&str, &str)] = &[$((stringify!($name), stringify!($type))),*];
    };
}

/// Pointers to functions that return nothing; `None` is null.
macro_rules! callbacks {
    ($($(#[$attribute:meta])* pub type $name:ident = fn($($parameter:ident: $type:ty),*);)*) => {
        $($(#[$attribute])* pub type $name = Option<unsafe extern "C" fn($($parameter: $type),*)>;)*

        #[cfg(test)]
        pub(crate) const CALLBACKS: &[(&str, &[&str])] = &[$((stringify!($name), &[$(stringify!($type)),*])),*];
    };
}

/// Types that exist behind pointers only.
macro_rules! opaque_types {
    ($($(#[$attribute:meta])* pub struct $name:ident;)*) => {
        $(
            $(#[$attribute])*
            #[repr(C)]
            pub struct $name {
                _opaque: [u8; 0],
                _neither_send_nor_sync: core::marker::PhantomData<*mut u8>,
            }
        )*

        #[cfg(test)]
        pub(crate) const OPAQUE_TYPES: &[&str] = &[$(stringify!($name)),*];
    };
}

/// Structs. `default()` is C's `NAME_init()`: all fields are 0, except `struct_size`.
macro_rules! structs {
    ($($(#[$attribute:meta])* pub struct $name:ident { $(pub $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$attribute])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug)]
            pub struct $name {
                $(pub $field: $type,)*
            }

            impl Default for $name {
                fn default() -> Self {
                    // Safety: 0 is a value of each field: numbers, pointers and optional functions.
                    #[allow(unused_mut)]
                    let mut init: Self = unsafe { core::mem::zeroed() };
                    $(structs!(@set_size init $field);)*
                    init
                }
            }
        )*

        #[cfg(test)]
        pub(crate) fn structs() -> Vec<Struct> {
            vec![$({
                let value = <$name>::default();
                let begin = core::ptr::addr_of!(value) as usize;
                Struct {
                    name: stringify!($name),
                    size: core::mem::size_of::<$name>(),
                    fields: vec![$(Field {
                        name: stringify!($field),
                        type_name: stringify!($type),
                        offset: core::ptr::addr_of!(value.$field) as usize - begin,
                    }),*],
                }
            }),*]
        }
    };
    (@set_size $init:ident struct_size) => {
        $init.struct_size = core::mem::size_of_val(&$init);
    };
    (@set_size $init:ident $other_field:ident) => {};
}

/// Exported functions.
macro_rules! functions {
    ($($(#[$attribute:meta])* pub fn $name:ident($($parameter:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)*) => {
        extern "C" {
            $($(#[$attribute])* pub fn $name($($parameter: $type),*) $(-> $result)?;)*
        }

        #[cfg(test)]
        pub(crate) const FUNCTIONS: &[Function] = &[$(Function {
            name: stringify!($name),
            parameters: &[$(stringify!($type)),*],
            result: concat!($(stringify!($result))?),
        }),*];
    };
}
