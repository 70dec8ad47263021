// Package record keeps what happened at the gate, in an order that nobody can
// quietly rewrite.
//
// # Entries
//
// An entry has two parts. Its [Leaf] is what is hashed, and so what stays for
// ever: it holds no personal data, only when, which kind and why, and a commitment
// to the body. Its body, JSON of at most 64 KiB, says about whom. It is sealed with
// AES-256-GCM under a key of its own; that key and the commitment's salt lie beside
// it in a slot, wrapped under the installation's key. Overwriting the slot erases the body for good while every proof about the leaf stays valid.
//
// # Files
//
// A node writes its entries one after the other, in frames, into segment files
// DIR/FIRST.seg, each of which begins with a [SegmentHeader] that names the node, the
// first entry and the hash of the segment before. Bytes are made once and hashed
// as they are; verifying never encodes anew. See [Check] for what is found and what
// is not: whoever can write to the disk can cut off the end, which shows only beside
// a checkpoint or a mirror that was kept elsewhere.
//
// # Writing
//
// [Open] gives one process alone the directory. [Log.Append] returns when the entry
// is on the disk: one goroutine forms groups out of what waits, another writes a
// group and syncs once for all of it. An entry that is alone waits for nobody.
// [Log.Count] is for what a flood can cause: it only adds to sums in memory, which
// become one entry for each kind and reason every ten seconds, under a quota of
// bytes an hour. Beyond the quota sums go on growing and nothing is miscounted. So
// a flood fills neither the queue nor the disk; beside that, a reserve of disk
// space is given up only for waiting entries.
//
// When the disk fails, Append fails ([ErrUnavailable]) and the file is cut back to
// what is known to be on it; when there is room again writing goes on by itself.
// After a failed sync nothing that was cached is believed (the kernel may have
// dropped the pages): the file is read again from the disk first. A sequence that
// was acknowledged is never given to another entry.
//
// # After a crash
//
// Entries that were not acknowledged may be cut in the middle. Open cuts off such an
// end, keeps it beside the segment (FIRST.seg.OFFSET.torn) and writes an entry
// "record.recovered" about it. Anything else that does not fit is not repaired: then
// somebody wrote there, or the disk is bad, and Open says where. [RepairTail] is for
// an operator who then gives up the end.
//
// # Mirror
//
// With [Config.Mirror] durable frames are copied elsewhere, in order, byte for byte
// and as often as needed; [Status] shows how far behind that is, and [Restore] makes
// the directory anew from there. A directory that lacks what the mirror has, as after
// a restore from an older backup, is not mirrored on ([ErrFork]). All frames are
// copied and not the waiting ones alone, so that the copy has no gaps and verifies
// like the original; what the quota allows bounds the rest.
package record
