package main

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	lastgood "github.com/kidoban/kidoban/gateway/watch"
	"github.com/kidoban/kidoban/rules"
)

// over is a file system in which files of the first hide those of the second, as the
// gate lays the installation's rules over those that ship.
type over [2]fs.FS

func (o over) Open(name string) (fs.File, error) {
	f, err := o[0].Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return o[1].Open(name)
	}
	return f, err
}

// ReadDir lists the files of both; it is enough that one has the folder.
func (o over) ReadDir(name string) ([]fs.DirEntry, error) {
	top, err := fs.ReadDir(o[0], name)
	bottom, err2 := fs.ReadDir(o[1], name)
	if err != nil && (err2 != nil || !errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	seen := make(map[string]bool, len(top))
	for _, e := range top {
		seen[e.Name()] = true
	}
	for _, e := range bottom {
		if !seen[e.Name()] {
			top = append(top, e)
		}
	}
	return top, nil
}

// oneRule is a folder seen as if it held one rule; its lists are there too.
type oneRule struct {
	dir  fs.FS
	name string
}

func (o oneRule) Open(name string) (fs.File, error) {
	if strings.HasSuffix(name, ".yaml") && name != o.name && !strings.Contains(name, "/") {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return o.dir.Open(name)
}

func (o oneRule) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(o.dir, name)
	if name != "." {
		return all, err
	}
	var kept []fs.DirEntry
	for _, e := range all {
		if e.IsDir() || e.Name() == o.name {
			kept = append(kept, e)
		}
	}
	return kept, err
}

// ruleFiles is what a gate would have in force with the rules at path, a directory or
// one file, over others.
func ruleFiles(path string, others fs.FS) (fs.FS, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return over{os.DirFS(path), others}, nil
	}
	if !strings.HasSuffix(path, ".yaml") {
		return nil, fmt.Errorf("%s is neither a directory of rules nor a file *.yaml", path)
	}
	return over{oneRule{os.DirFS(filepath.Dir(path)), filepath.Base(path)}, others}, nil
}

// running is the rules that the gate of a data directory has in force: the last good
// version of each. ok is false where none are kept, as where only those that ship are.
func running(dataDir string) (files fs.FS, ok bool, err error) {
	keeper := lastgood.Keeper{Dir: filepath.Join(dataDir, "good", "rules")}
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range keeper.Names() {
		content, _, there := keeper.LastGood(name)
		if !there {
			return nil, false, fmt.Errorf("the version of %s that is in force cannot be read from %s", name, keeper.Dir)
		}
		f, err := w.CreateHeader(&zip.FileHeader{Name: name}) // not compressed
		if err == nil {
			_, err = f.Write(content)
		}
		if err != nil {
			return nil, false, err
		}
		ok = true
	}
	if err := w.Close(); err != nil || !ok {
		return nil, false, err
	}
	files, err = zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	return files, true, err
}

// loadSet loads rules. The error tells all faults.
func loadSet(what string, files fs.FS) (*rules.Set, error) {
	set, faults := rules.Load(files)
	if len(faults) == 0 {
		return set, nil
	}
	var b strings.Builder
	for _, fault := range faults {
		fmt.Fprintf(&b, "\n  %v", fault)
	}
	return nil, fmt.Errorf("%d faults in %s:%s", len(faults), what, b.String())
}
