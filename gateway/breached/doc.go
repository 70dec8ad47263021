// Package breached tells whether a password is known to whoever tries stolen ones: from
// a file made of lists in the Pwned Passwords format, and from a range API.
//
// A file is made by [Build] and read by [Open]. It holds no password and no hash, but an
// 8-bit binary fuse filter (Graf and Lemire, "Binary Fuse Filters", 2022) of about nine
// bits for each password: a password of the list is always found, and one in 256 of the
// others (0.4%) as well. So a hit is a reason to look closer, never one to refuse alone.
//
// A [Ranges] asks a server that knows more, by the first 20 bits of a password's SHA-1.
// Whatever goes wrong there means "unknown", which counts as not breached.
//
// [Passwords] has both for a gate, and takes over a file that was replaced.
//
// Passwords are hashed as the bytes that were typed, without normalization, as the lists
// are. Nothing here logs one, or a hash of one, or puts it into an error.
package breached
