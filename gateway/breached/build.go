package breached

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/FastFilter/xorfilter"
)

// maxShard bounds the entries of one shard, and so the memory: 2^24 take some 700 MB.
const maxShard = 1 << 24

// BuildOptions say what [Build] takes. The zero value takes every entry that was seen
// once or more.
type BuildOptions struct {
	Min   uint64    // entries with a lower count are left out; 0: 1
	Date  time.Time // of the lists; zero: when the newest of them was written
	Stdin io.Reader // what "-" is; nil: os.Stdin
}

// Built is what a build came to.
type Built struct {
	Read  uint64 // entries of the lists
	Keys  uint64 // different ones that were taken
	Bytes int64  // of the file
	Date  time.Time
}

// Build makes file from lists in the Pwned Passwords format: SHA-1 hash, colon, count;
// sorted or not. A list is a file, "-" for standard input, or a folder of range files.
// NTLM hashes are refused. The file appears under its name when it is complete, and
// replaces what was there.
//
// Entries are spilled by their first byte to a folder beside the file, eight bytes each,
// and taken from there part by part. So the memory is what a 256th of the entries needs:
// about 250 MB of the process for a billion, and 750 MB at most; for more entries it is an error.
func Build(ctx context.Context, file string, names []string, o BuildOptions) (_ Built, err error) {
	if len(names) == 0 {
		return Built{}, errors.New("no list is named")
	}
	dir, err := os.MkdirTemp(filepath.Dir(file), ".breached-*")
	if err != nil {
		return Built{}, fmt.Errorf("a folder beside the file: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := builder{least: max(o.Min, 1)}
	defer b.close()
	if err := b.begin(dir); err != nil {
		return Built{}, err
	}
	all := lists{stdin: cmp.Or[io.Reader](o.Stdin, os.Stdin), take: b.take}
	for _, name := range names {
		if err := all.read(ctx, name); err != nil {
			return Built{}, err
		}
	}
	if b.taken == 0 {
		return Built{}, fmt.Errorf("none of the %d entries was seen %d times or more", b.read, b.least)
	}
	b.date = o.Date
	if b.date.IsZero() {
		if b.date = all.date; b.date.IsZero() { // standard input alone
			b.date = time.Now()
		}
	}
	b.date = b.date.UTC().Truncate(time.Second)
	made, err := b.write(ctx, filepath.Join(dir, "file"))
	if err != nil {
		return Built{}, err
	}
	if err := os.Rename(filepath.Join(dir, "file"), file); err != nil {
		return Built{}, err
	}
	parent, err := os.Open(filepath.Dir(file))
	if err != nil {
		return Built{}, err
	}
	return made, errors.Join(parent.Sync(), parent.Close())
}

// builder is a build under way.
type builder struct {
	least       uint64
	date        time.Time
	read, taken uint64
	spills      [shards]spill
}

// spill holds the entries of one shard.
type spill struct {
	file *os.File
	w    *bufio.Writer
	n    int
}

func (b *builder) begin(dir string) error {
	for i := range b.spills {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("%02x", i)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		b.spills[i] = spill{file: f, w: bufio.NewWriterSize(f, 1<<15)}
	}
	return nil
}

func (b *builder) close() {
	for _, s := range b.spills {
		if s.file != nil {
			_ = s.file.Close() // it is deleted next
		}
	}
}

func (b *builder) take(sum [sha1.Size]byte, count uint64) error {
	b.read++
	if count < b.least {
		return nil
	}
	b.taken++
	s := &b.spills[sum[0]]
	if s.n++; s.n > maxShard {
		return fmt.Errorf("more than %d entries begin with %02X: take fewer lists, or a higher least count", maxShard, sum[0])
	}
	_, err := s.w.Write(binary.LittleEndian.AppendUint64(s.w.AvailableBuffer(), key(sum)))
	return err
}

// write writes the file from the spills, and syncs it.
func (b *builder) write(ctx context.Context, file string) (_ Built, err error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return Built{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buffered, sum := bufio.NewWriterSize(f, 1<<20), sha256.New()
	w := io.MultiWriter(buffered, sum)

	head := binary.LittleEndian.AppendUint32([]byte(magic), version)
	head = binary.LittleEndian.AppendUint32(head, shards)
	head = binary.LittleEndian.AppendUint64(head, uint64(b.date.Unix()))
	head = binary.LittleEndian.AppendUint64(head, b.least)
	if _, err := w.Write(head); err != nil {
		return Built{}, err
	}
	made := Built{Read: b.read, Date: b.date}
	var memory xorfilter.BinaryFuseBuilder
	var keys []uint64
	for i := range b.spills {
		if err := ctx.Err(); err != nil {
			return Built{}, err
		}
		if keys, err = b.spills[i].keys(keys[:0]); err != nil {
			return Built{}, err
		}
		made.Keys += uint64(len(keys))
		if err := writeShard(w, &memory, keys); err != nil {
			return Built{}, fmt.Errorf("the filter of hashes that begin with %02X: %w", i, err)
		}
	}
	if _, err := buffered.Write(sum.Sum(nil)); err != nil {
		return Built{}, err
	}
	if err := errors.Join(buffered.Flush(), f.Sync()); err != nil {
		return Built{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return Built{}, err
	}
	made.Bytes = info.Size()
	return made, nil
}

// keys are the entries of s, sorted, each once, appended to room.
func (s *spill) keys(room []uint64) ([]uint64, error) {
	if err := s.w.Flush(); err != nil {
		return nil, err
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	in := bufio.NewReaderSize(s.file, 1<<16)
	room = slices.Grow(room, s.n)
	for range s.n {
		var b [8]byte
		if _, err := io.ReadFull(in, b[:]); err != nil {
			return nil, fmt.Errorf("reading what was spilled: %w", err)
		}
		room = append(room, binary.LittleEndian.Uint64(b[:]))
	}
	slices.Sort(room)
	return slices.Compact(room), nil
}

func writeShard(w io.Writer, memory *xorfilter.BinaryFuseBuilder, keys []uint64) error {
	var f xorfilter.BinaryFuse[uint8]
	if len(keys) > 0 {
		var err error
		if f, err = xorfilter.BuildBinaryFuse[uint8](memory, keys); err != nil {
			return err
		}
	} // else a shard of zeros
	head := binary.LittleEndian.AppendUint32(nil, uint32(len(keys)))
	head = binary.LittleEndian.AppendUint32(head, f.SegmentLength)
	head = binary.LittleEndian.AppendUint32(head, f.SegmentCount)
	head = binary.LittleEndian.AppendUint32(head, 0)
	head = binary.LittleEndian.AppendUint64(head, f.Seed)
	if _, err := w.Write(head); err != nil {
		return err
	}
	_, err := w.Write(f.Fingerprints)
	return err
}
