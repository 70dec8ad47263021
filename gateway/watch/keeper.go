package watch

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Keeper keeps the latest good version of files in Dir, so that one that goes bad
// can stay in force, also across restarts. The versions that are kept at one time are
// a file together, named by its SHA-256, which is synced once however many they are;
// index.json says which part of which file is whose, and is replaced after it. A
// version is read back only if its own SHA-256 is still right, so what a crash or a
// disk tore is no version. Each file is written beside its place, synced and renamed;
// folder and files are the owner's alone. At most 2,000 versions of 1 MiB, 64 MiB
// together, are kept; on disk they may take twice that and 1 MiB, because of files of
// which some parts were replaced.
//
// One process has a Dir. The zero value with a Dir is ready; it is safe for
// concurrent use.
type Keeper struct {
	Dir string

	mu      sync.Mutex      // guards all below
	index   map[string]kept // by name; nil: not read yet
	damaged error           // found when reading the index, and not told yet
}

// kept is a version, and where it lies.
type kept struct {
	Hash string `json:"sha256"`
	Size int64  `json:"size"`
	In   string `json:"in,omitempty"` // the file that it is a part of; empty: it is the whole of the file Hash
	At   int64  `json:"at,omitempty"` // where it begins there
}

// file is the file that v lies in.
func (v kept) file() string {
	if v.In != "" {
		return v.In
	}
	return v.Hash
}

const (
	indexFile  = "index.json"
	unfinished = ".new" // ends the name of a file that is being written
	maxIndex   = 4 << 20
	maxKeyName = 1024    // bytes
	spare      = 1 << 20 // bytes of replaced versions that are not worth writing the others anew
)

// Good keeps data as the last good version of name. It writes nothing when it is
// that already. An index that was damaged starts anew and is told as an error, with
// data kept.
func (k *Keeper) Good(name string, data []byte) error {
	return k.change(map[string][]byte{name: data}, nil)
}

// Forget drops the version of name: the file was deleted, and one that comes back
// bad has no past.
func (k *Keeper) Forget(name string) error { return k.change(nil, []string{name}) }

// change keeps and drops versions, at a time: after a crash all of it was done, or
// nothing. A version that cannot be kept is told, and the others are.
func (k *Keeper) change(good map[string][]byte, gone []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.readLocked()
	index, changed := maps.Clone(k.index), false
	for _, name := range gone {
		if _, known := index[name]; known {
			delete(index, name)
			changed = true
		}
	}
	var total int64
	for _, v := range index {
		total += v.Size
	}
	var faults []error
	fresh := map[string][]byte{} // by SHA-256
	for _, name := range slices.Sorted(maps.Keys(good)) {
		data := good[name]
		sum := sha256.Sum256(data)
		hash := hex.EncodeToString(sum[:])
		if index[name].Hash == hash {
			if _, err := k.versionLocked(index[name]); err == nil {
				continue
			}
		}
		_, known := index[name]
		after := total + int64(len(data)) - index[name].Size
		fault := ""
		switch {
		case name == "" || len(name) > maxKeyName:
			fault = fmt.Sprintf("a name of %d bytes, want 1 to %d", len(name), maxKeyName)
			name = "a file"
		case len(data) > maxFile:
			fault = fmt.Sprintf("%d bytes, want at most %d", len(data), maxFile)
		case !known && len(index) >= maxFiles:
			fault = fmt.Sprintf("%d files are kept, which is the most", maxFiles)
		case after > maxBytes:
			fault = fmt.Sprintf("it would be %d bytes with the others, want at most %d", after, maxBytes)
		}
		if fault != "" {
			faults = append(faults, fmt.Errorf("%s: keeping this good version: %s", name, fault))
			continue
		}
		fresh[hash] = data
		index[name], changed, total = kept{Hash: hash, Size: int64(len(data))}, true, after
	}
	if !changed {
		return errors.Join(faults...)
	}
	if err := k.storeLocked(index, fresh); err != nil {
		return errors.Join(append(faults, fmt.Errorf("keeping good versions: %w", err))...)
	}
	faults = append(faults, k.damaged)
	k.damaged = nil
	return errors.Join(faults...)
}

// LastGood is the version of name that [Keeper.Good] kept last, with its SHA-256 in
// hex.
func (k *Keeper) LastGood(name string) (data []byte, hash string, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.readLocked()
	v, known := k.index[name]
	if !known {
		return nil, "", false
	}
	data, err := k.versionLocked(v)
	if err != nil {
		return nil, "", false
	}
	return data, v.Hash, true
}

// Names lists the files of which a version is kept, sorted.
func (k *Keeper) Names() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.readLocked()
	return slices.Sorted(maps.Keys(k.index))
}

// readLocked reads the index unless it was read. One that is damaged is empty.
func (k *Keeper) readLocked() {
	if k.index != nil {
		return
	}
	k.index = map[string]kept{}
	file := filepath.Join(k.Dir, indexFile)
	b, err := readFile(file, maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var index map[string]kept
	if err == nil {
		index, err = parseIndex(b)
	}
	if err != nil {
		k.damaged = fmt.Errorf("%s: the last good versions start anew: %w", file, err)
		return
	}
	k.index = index
}

func parseIndex(b []byte) (map[string]kept, error) {
	index := map[string]kept{}
	if err := json.Unmarshal(b, &index); err != nil {
		return nil, err
	}
	if index == nil {
		return nil, errors.New("it is null")
	}
	if len(index) > maxFiles {
		return nil, fmt.Errorf("%d files, want at most %d", len(index), maxFiles)
	}
	for name, v := range index {
		if !isHash(v.Hash) || !isHash(v.file()) || v.Size < 0 || v.Size > maxFile || v.At < 0 || v.At > maxBytes || name == "" || len(name) > maxKeyName {
			return nil, fmt.Errorf("the version of %.64q is not one", name)
		}
	}
	return index, nil
}

// isHash reports whether name is a SHA-256 as files are named by it.
func isHash(name string) bool {
	hash, err := hex.DecodeString(name)
	return err == nil && len(hash) == sha256.Size
}

func (k *Keeper) versionLocked(v kept) ([]byte, error) {
	file := filepath.Join(k.Dir, v.file())
	if info, err := os.Stat(file); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() { // a pipe would block
		return nil, fmt.Errorf("%s: it is no regular file", file)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, v.Size)
	if n, err := f.ReadAt(data, v.At); n < len(data) {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != v.Hash {
		return nil, fmt.Errorf("%s: the content is not what it was", file)
	}
	return data, nil
}

// storeLocked writes the fresh versions, which are by SHA-256, as one file and then
// the index, and deletes what that does not name.
func (k *Keeper) storeLocked(index map[string]kept, fresh map[string][]byte) error {
	if err := os.MkdirAll(k.Dir, 0o700); err != nil {
		return err
	}
	k.compactLocked(index, fresh)
	if len(fresh) > 0 {
		var pack []byte
		at := map[string]int64{}
		for _, hash := range slices.Sorted(maps.Keys(fresh)) {
			at[hash] = int64(len(pack))
			pack = append(pack, fresh[hash]...)
		}
		sum := sha256.Sum256(pack)
		file := hex.EncodeToString(sum[:])
		for name, v := range index {
			if _, ok := fresh[v.Hash]; ok {
				if v.In, v.At = file, at[v.Hash]; file == v.Hash {
					v.In, v.At = "", 0
				}
				index[name] = v
			}
		}
		if err := write(filepath.Join(k.Dir, file), pack); err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(index, "", "\t")
	if err != nil {
		return err
	}
	if err := write(filepath.Join(k.Dir, indexFile), append(b, '\n')); err != nil {
		return err
	}
	k.index = index
	used := make(map[string]bool, len(index)+1)
	for _, v := range index {
		used[v.file()] = true
	}
	names, err := list(k.Dir)
	if err != nil {
		return nil // what is left over is deleted the next time
	}
	for _, name := range names {
		if whole := strings.TrimSuffix(name, unfinished); isHash(whole) && !used[name] {
			_ = os.Remove(filepath.Join(k.Dir, name))
		}
	}
	return nil
}

// compactLocked has all of index written anew when the files that it lies in would be
// more than twice as large.
func (k *Keeper) compactLocked(index map[string]kept, fresh map[string][]byte) {
	var wanted, taken int64
	looked := map[string]bool{}
	for _, v := range index {
		wanted += v.Size
		if _, ok := fresh[v.Hash]; ok {
			taken += v.Size
		} else if file := v.file(); !looked[file] {
			looked[file] = true
			if info, err := os.Stat(filepath.Join(k.Dir, file)); err == nil {
				taken += info.Size()
			}
		}
	}
	if taken <= 2*wanted+spare {
		return
	}
	for _, v := range index {
		if _, ok := fresh[v.Hash]; ok {
			continue
		}
		if data, err := k.versionLocked(v); err == nil { // else it is no version any more
			fresh[v.Hash] = data
		}
	}
}

// write makes path hold data, all or nothing, also when the power goes.
func write(path string, data []byte) (err error) {
	temporary := path + unfinished
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temporary)
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(temporary, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
