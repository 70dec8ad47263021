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
	"sync"
)

// Keeper keeps the latest good version of files in Dir, so that one that goes bad
// can stay in force, also across restarts. A version is a file named by its SHA-256
// and read back only if that is still right; index.json says which is whose. All
// are written beside their place, synced and renamed; folder and files are the
// owner's alone. At most 2,000 files of 1 MiB, 64 MiB together, are kept.
//
// One process has a Dir. The zero value with a Dir is ready; it is safe for
// concurrent use.
type Keeper struct {
	Dir string

	mu      sync.Mutex      // guards all below
	index   map[string]kept // by name; nil: not read yet
	damaged error           // found when reading the index, and not told yet
}

type kept struct {
	Hash string `json:"sha256"`
	Size int64  `json:"size"`
}

const (
	indexFile  = "index.json"
	maxIndex   = 4 << 20
	maxKeyName = 1024 // bytes
)

// Good keeps data as the last good version of name. It writes nothing when it is
// that already. An index that was damaged starts anew and is told as an error, with
// data kept.
func (k *Keeper) Good(name string, data []byte) error {
	return k.GoodAll(map[string][]byte{name: data})
}

// GoodAll is Good for many files, of which the index is written once. A file that
// cannot be kept is told, and the others are.
func (k *Keeper) GoodAll(files map[string][]byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.readLocked()
	index, changed := maps.Clone(k.index), false
	var total int64
	for _, v := range index {
		total += v.Size
	}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(files)) {
		data := files[name]
		sum := sha256.Sum256(data)
		hash := hex.EncodeToString(sum[:])
		if index[name].Hash == hash {
			if _, err := k.versionLocked(hash); err == nil {
				continue
			}
		}
		_, known := index[name]
		after := total + int64(len(data)) - index[name].Size
		switch {
		case name == "" || len(name) > maxKeyName:
			faults = append(faults, fmt.Errorf("keeping a good version: a name of %d bytes, want 1 to %d", len(name), maxKeyName))
			continue
		case len(data) > maxFile:
			faults = append(faults, fmt.Errorf("%s: keeping this good version: %d bytes, want at most %d", name, len(data), maxFile))
			continue
		case !known && len(index) >= maxFiles:
			faults = append(faults, fmt.Errorf("%s: keeping this good version: %d files are kept, which is the most", name, maxFiles))
			continue
		case after > maxBytes:
			faults = append(faults, fmt.Errorf("%s: keeping this good version: it would be %d bytes with the others, want at most %d", name, after, maxBytes))
			continue
		}
		err := os.MkdirAll(k.Dir, 0o700)
		if err == nil {
			err = put(filepath.Join(k.Dir, hash), data) // durable with the index
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: keeping this good version: %w", name, err))
			continue
		}
		index[name], changed, total = kept{hash, int64(len(data))}, true, after
	}
	if !changed {
		return errors.Join(faults...)
	}
	if err := k.replaceLocked(index); err != nil {
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
	data, err := k.versionLocked(v.Hash)
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

// Forget drops the version of name: the file was deleted, and one that comes back
// bad has no past.
func (k *Keeper) Forget(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.readLocked()
	if _, known := k.index[name]; !known {
		return nil
	}
	index := maps.Clone(k.index)
	delete(index, name)
	if err := k.replaceLocked(index); err != nil {
		return fmt.Errorf("%s: forgetting its last good version: %w", name, err)
	}
	return nil
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
		if hash, err := hex.DecodeString(v.Hash); err != nil || len(hash) != sha256.Size || v.Size < 0 || v.Size > maxFile || name == "" || len(name) > maxKeyName {
			return nil, fmt.Errorf("the version of %.64q is not one", name)
		}
	}
	return index, nil
}

func (k *Keeper) versionLocked(hash string) ([]byte, error) {
	data, err := readFile(filepath.Join(k.Dir, hash), maxFile)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != hash {
		return nil, fmt.Errorf("%s: the content is not what it was", hash)
	}
	return data, nil
}

// replaceLocked writes the index, then deletes the versions that none of it names.
func (k *Keeper) replaceLocked(index map[string]kept) error {
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
		used[v.Hash] = true
	}
	names, err := list(k.Dir)
	if err != nil {
		return nil // what is left over is deleted the next time
	}
	for _, name := range names {
		if hash, err := hex.DecodeString(name); err == nil && len(hash) == sha256.Size && !used[name] {
			_ = os.Remove(filepath.Join(k.Dir, name))
		}
	}
	return nil
}

// put makes path hold data, all or nothing; the name is durable once its folder is.
func put(path string, data []byte) (err error) {
	temporary := path + ".new"
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
	return os.Rename(temporary, path)
}

// write is put, durable with its name when it returns; so is what was put in the same
// folder before.
func write(path string, data []byte) error {
	if err := put(path, data); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
