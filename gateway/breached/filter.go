package breached

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/FastFilter/xorfilter"
)

// The file: a header, a filter for each first byte of a hash, and the SHA-256 of all
// before it. Numbers are little-endian.
//
//	header  magic 8 | version 4 | shards 4 | date of the source, Unix seconds 8 | least count 8
//	shard   keys 4 | segment length 4 | segments 4 | zero 4 | seed 8 | fingerprints
//
// A shard has (segments+2) * length fingerprints of one byte, or none without keys.
const (
	magic       = "kdbpwned"
	version     = 1
	shards      = 256
	headerSize  = 32
	shardHeader = 24
	maxSegment  = 1 << 18 // the most that the algorithm uses
	maxFile     = 6 << 30 // bytes; a file of the billion passwords that are published has 1.2e9
)

// Filter is a file that was read. It is immutable and safe for concurrent use.
type Filter struct {
	// Date is of the lists, Keys how many passwords are in the file, Min how often each
	// was seen at least.
	Date time.Time
	Keys uint64
	Min  uint64

	shards [shards]xorfilter.BinaryFuse[uint8] // into data; one without keys has no fingerprints
	data   []byte
}

// Open reads a file that [Build] made into memory outside of Go's heap, where it does not
// delay collections. Replacing or deleting the file later changes nothing here. A file
// that is cut off, damaged or of another kind is an error.
func Open(file string) (*Filter, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("the list of breached passwords: %w", err)
	}
	defer f.Close()
	filter, err := load(f)
	if err != nil {
		return nil, fmt.Errorf("the list of breached passwords %s: %w", file, err)
	}
	return filter, nil
}

func load(f *os.File) (*Filter, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is no regular file")
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("has %d bytes, want at most %d", info.Size(), int64(maxFile))
	}
	// What is something else altogether is not read to its end to find out.
	var head [headerSize]byte
	if _, err := f.ReadAt(head[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := checkHeader(head[:min(info.Size(), headerSize)]); err != nil {
		return nil, err
	}
	data, free, err := room(int(info.Size()))
	if err != nil {
		return nil, fmt.Errorf("%d MiB of memory: %w", info.Size()>>20, err)
	}
	if _, err := io.ReadFull(f, data); err != nil {
		free(data)
		return nil, fmt.Errorf("changed while it was read: %w", err)
	}
	filter, err := parse(data)
	if err != nil {
		free(data)
		return nil, err
	}
	runtime.AddCleanup(filter, free, data)
	return filter, nil
}

func checkHeader(data []byte) error {
	switch {
	case len(data) < len(magic) || string(data[:len(magic)]) != magic:
		return errors.New("was not made by `kidoban breached build`; make it from the list with that")
	case len(data) < headerSize:
		return errCut
	}
	if v := binary.LittleEndian.Uint32(data[8:]); v != version {
		return fmt.Errorf("is of version %d, and this program reads version %d: make it anew with `kidoban breached build`", v, version)
	}
	if n := binary.LittleEndian.Uint32(data[12:]); n != shards {
		return fmt.Errorf("%w: it says %d shards", errDamaged, n)
	}
	return nil
}

var (
	errCut     = errors.New("is cut off: copy it again, beside its place, and rename it")
	errDamaged = errors.New("is damaged: copy it again, or make it anew")
)

// parse reads a file's content, which the filter keeps.
func parse(data []byte) (*Filter, error) {
	if err := checkHeader(data); err != nil {
		return nil, err
	}
	f := &Filter{
		Date: time.Unix(int64(binary.LittleEndian.Uint64(data[16:])), 0).UTC(),
		Min:  binary.LittleEndian.Uint64(data[24:]), data: data,
	}
	rest := data[headerSize:]
	for i := range f.shards {
		if len(rest) < shardHeader {
			return nil, errCut
		}
		head := rest[:shardHeader]
		rest = rest[shardHeader:]
		keys, length, count := binary.LittleEndian.Uint32(head), binary.LittleEndian.Uint32(head[4:]), binary.LittleEndian.Uint32(head[8:])
		zero, seed := binary.LittleEndian.Uint32(head[12:]), binary.LittleEndian.Uint64(head[16:])
		if zero != 0 {
			return nil, fmt.Errorf("%w: shard %d has a header of another form", errDamaged, i)
		}
		if keys == 0 {
			if length != 0 || count != 0 || seed != 0 {
				return nil, fmt.Errorf("%w: shard %d is empty and has segments", errDamaged, i)
			}
			continue
		}
		if length == 0 || length > maxSegment || length&(length-1) != 0 || count == 0 || uint64(count)*uint64(length) >= 1<<31 {
			return nil, fmt.Errorf("%w: shard %d has %d segments of %d", errDamaged, i, count, length)
		}
		n := (uint64(count) + 2) * uint64(length)
		if uint64(len(rest)) < n {
			return nil, errCut
		}
		f.Keys += uint64(keys)
		f.shards[i] = xorfilter.BinaryFuse[uint8]{
			Seed: seed, SegmentLength: length, SegmentLengthMask: length - 1, SegmentCount: count, SegmentCountLength: count * length,
			Fingerprints: rest[:n:n],
		}
		rest = rest[n:]
	}
	switch {
	case len(rest) < sha256.Size:
		return nil, errCut
	case len(rest) > sha256.Size:
		return nil, fmt.Errorf("%w: %d bytes follow its end", errDamaged, len(rest)-sha256.Size)
	}
	if sum := sha256.Sum256(data[:len(data)-sha256.Size]); !bytes.Equal(sum[:], rest) {
		return nil, fmt.Errorf("%w: its checksum is wrong", errDamaged)
	}
	return f, nil
}

// Contains reports whether the list has the password with this SHA-1: true if it has, and
// for one in 256 that it has not.
func (f *Filter) Contains(sum [sha1.Size]byte) bool {
	shard := &f.shards[sum[0]]
	found := len(shard.Fingerprints) > 0 && shard.Contains(key(sum))
	runtime.KeepAlive(f) // and with it what the fingerprints are in
	return found
}

// key is the part of a hash that a shard holds. Of a billion passwords, two have the same
// one with a chance of 3%, which makes the file shorter by one.
func key(sum [sha1.Size]byte) uint64 { return binary.BigEndian.Uint64(sum[:]) }
