package watch_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/gateway/watch"
)

func TestKeeperKeeps(t *testing.T) {
	dir := t.TempDir() + "/versions"
	k := &watch.Keeper{Dir: dir}
	if _, _, ok := k.LastGood("a.yaml"); ok {
		t.Error("there is a version before any was kept")
	}
	for _, content := range []string{"1", "2", "2"} {
		must(t, k.Good("a.yaml", []byte(content)))
	}
	must(t, k.Good("b.yaml", []byte("2")))
	must(t, k.Good("backends/../odd name\n.yaml", nil))
	again := &watch.Keeper{Dir: dir}
	got, hash, ok := again.LastGood("a.yaml")
	if !ok || string(got) != "2" || hash != "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35" {
		t.Errorf("got %q %s %v, want 2", got, hash, ok)
	}
	must(t, again.Forget("b.yaml"))
	must(t, again.Forget("nobody.yaml"))
	if got, want := strings.Join(again.Names(), ","), "a.yaml,backends/../odd name\n.yaml"; got != want {
		t.Errorf("names: got %q, want %q", got, want)
	}
	files, err := os.ReadDir(dir)
	must(t, err)
	if len(files) != 3 {
		t.Errorf("%d files, want the index and two versions: %v", len(files), files)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v; want 0600", f.Name(), info.Mode(), err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v; want 0700", info.Mode(), err)
	}
}

func TestKeeperDoesNotBelieveWhatWasChanged(t *testing.T) {
	dir := t.TempDir()
	must(t, (&watch.Keeper{Dir: dir}).Good("a.yaml", []byte("good")))
	_, hash, _ := (&watch.Keeper{Dir: dir}).LastGood("a.yaml")
	put(t, filepath.Join(dir, hash), "evil")
	k := &watch.Keeper{Dir: dir}
	if got, _, ok := k.LastGood("a.yaml"); ok {
		t.Errorf("got %q", got)
	}
	must(t, k.Good("a.yaml", []byte("good"))) // mended
	if got, _, ok := k.LastGood("a.yaml"); !ok || string(got) != "good" {
		t.Errorf("got %q, %v", got, ok)
	}
	put(t, dir+"/index.json", "{")
	k = &watch.Keeper{Dir: dir}
	if _, _, ok := k.LastGood("a.yaml"); ok {
		t.Error("a damaged index is believed")
	}
	if err := k.Good("a.yaml", []byte("good")); err == nil || !strings.Contains(err.Error(), "the last good versions start anew") {
		t.Errorf("got %v, want the damage told", err)
	}
	if err := k.Good("a.yaml", []byte("good")); err != nil {
		t.Errorf("told twice: %v", err)
	}
	if _, _, ok := k.LastGood("a.yaml"); !ok {
		t.Error("what was kept after the damage is gone")
	}
}

// sizes are the files in dir, and how large they are.
func sizes(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	found := map[string]int64{}
	for _, e := range entries {
		info, err := e.Info()
		must(t, err)
		found[e.Name()] = info.Size()
	}
	return found
}

// Many changes are one file and the index, when they are kept and not before.
func TestKeeperKeepsManyLater(t *testing.T) {
	dir := t.TempDir()
	k := &watch.Keeper{Dir: dir}
	must(t, k.Good("old.yaml", []byte("old")))
	must(t, k.Good("gone.yaml", []byte("gone")))
	l := k.Later()
	for i := range 1000 {
		must(t, l.Good(fmt.Sprintf("%d.yaml", i), fmt.Appendf(nil, "%d", i/2)))
	}
	must(t, l.Good("old.yaml", []byte("new")))
	must(t, l.Good("huge.yaml", make([]byte, 1<<20+1)))
	must(t, l.Forget("gone.yaml"))
	must(t, l.Forget("7.yaml"))
	if got, _, ok := l.LastGood("old.yaml"); !ok || string(got) != "old" || len(l.Names()) != 2 {
		t.Errorf("before they are kept: got %q of %q", got, l.Names())
	}
	if err := l.Keep(); err == nil || !strings.Contains(err.Error(), "huge.yaml: keeping this good version: 1048577 bytes") {
		t.Errorf("got %v, want the one that is too large told", err)
	}
	must(t, l.Keep())
	if found := sizes(t, dir); len(found) != 2 {
		t.Errorf("got files %v, want the index and one of all versions", found)
	}
	again := &watch.Keeper{Dir: dir}
	if n := len(again.Names()); n != 1000 {
		t.Errorf("%d versions are kept, want 1000", n)
	}
	for name, want := range map[string]string{"0.yaml": "0", "1.yaml": "0", "998.yaml": "499", "999.yaml": "499", "old.yaml": "new"} {
		if got, _, ok := again.LastGood(name); !ok || string(got) != want {
			t.Errorf("%s: got %q, %v; want %q", name, got, ok, want)
		}
	}
	for _, name := range []string{"gone.yaml", "7.yaml", "huge.yaml"} {
		if got, _, ok := again.LastGood(name); ok {
			t.Errorf("%s: got %q of what was dropped", name, got)
		}
	}
}

// Of a file of versions that is torn, those before the tear are still right.
func TestKeeperIgnoresWhatIsTorn(t *testing.T) {
	dir := t.TempDir()
	l := (&watch.Keeper{Dir: dir}).Later()
	for _, name := range []string{"a", "b", "c"} {
		must(t, l.Good(name, bytes.Repeat([]byte(name), 100)))
	}
	must(t, l.Keep())
	for file, size := range sizes(t, dir) {
		if size == 300 {
			must(t, os.Truncate(filepath.Join(dir, file), 250))
		}
	}
	k := &watch.Keeper{Dir: dir}
	kept := 0
	for _, name := range []string{"a", "b", "c"} {
		if got, _, ok := k.LastGood(name); ok {
			kept++
			if string(got) != strings.Repeat(name, 100) {
				t.Errorf("%s: got %q", name, got)
			}
		}
	}
	if kept != 2 {
		t.Errorf("%d versions are believed, want 2", kept)
	}
	for _, name := range []string{"a", "b", "c"} {
		must(t, k.Good(name, bytes.Repeat([]byte(name), 100)))
		if _, _, ok := k.LastGood(name); !ok {
			t.Errorf("%s is not mended", name)
		}
	}
}

// What was begun and not finished before a crash is cleared away, and what replaced
// versions leave is bounded.
func TestKeeperTakesLittleRoom(t *testing.T) {
	dir := t.TempDir()
	k := &watch.Keeper{Dir: dir}
	put(t, filepath.Join(dir, strings.Repeat("a", 64)+".new"), "half")
	put(t, filepath.Join(dir, strings.Repeat("b", 64)), "of no index")
	put(t, filepath.Join(dir, "README"), "somebody's")
	const size = 100 << 10
	for round := range 5 {
		l := k.Later()
		for i := round; i < 20; i++ { // the first round's file lives on for the sake of one version, and so on
			must(t, l.Good(fmt.Sprint(i), bytes.Repeat(fmt.Appendf(nil, "%d of %d, ", round, i), size)[:size]))
		}
		must(t, l.Keep())
		var all int64
		for _, n := range sizes(t, dir) {
			all += n
		}
		if most := int64(2*20*size + 1<<20 + 8<<10); all > most {
			t.Errorf("round %d: %d bytes on disk, want at most %d", round, all, most)
		}
	}
	for i := range 20 {
		want := fmt.Sprintf("%d of %d, ", min(i, 4), i)
		if got, _, ok := k.LastGood(fmt.Sprint(i)); !ok || !bytes.HasPrefix(got, []byte(want)) || len(got) != size {
			t.Errorf("%d: got %d bytes beginning %.20q, want %q", i, len(got), got, want)
		}
	}
	for name := range sizes(t, dir) {
		if strings.HasSuffix(name, ".new") || strings.HasPrefix(name, "bbbb") {
			t.Errorf("%s was left", name)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "README")); err != nil {
		t.Errorf("what is not the keeper's is gone: %v", err)
	}
}

func TestKeeperIsBounded(t *testing.T) {
	k := &watch.Keeper{Dir: t.TempDir()}
	if err := k.Good("a.yaml", make([]byte, 1<<20+1)); err == nil {
		t.Error("more than 1 MiB is kept")
	}
	if err := k.Good(strings.Repeat("a", 2000), nil); err == nil {
		t.Error("a name of 2,000 bytes is kept")
	}
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		err = k.Good(strings.Repeat("a", n+1), append(make([]byte, 1<<20-1), byte(n)))
	}
	if n != 65 || err == nil {
		t.Errorf("%d versions of 1 MiB, %v; want 64 and an error", n-1, err)
	}
	if err := k.Good("a", []byte("smaller")); err != nil {
		t.Errorf("no room after a file became smaller: %v", err)
	}
}

func TestKeeperIsAMap(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		for _, name := range (&watch.Keeper{Dir: dir}).Names() {
			if err := (&watch.Keeper{Dir: dir}).Forget(name); err != nil {
				t.Fatal(err)
			}
		}
		k, want := &watch.Keeper{Dir: dir}, map[string]string{}
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")
			switch rapid.SampledFrom([]string{"good", "forget", "restart", "many"}).Draw(t, "step") {
			case "many":
				l := k.Later()
				for _, name := range []string{"a", "b", "c"} {
					switch content := rapid.SampledFrom([]string{"", "x", "y", "as it is", "gone"}).Draw(t, "content of "+name); content {
					case "as it is":
					case "gone":
						delete(want, name)
						_ = l.Forget(name)
					default:
						want[name] = content
						_ = l.Good(name, []byte(content))
					}
				}
				if err := l.Keep(); err != nil {
					t.Fatal(err)
				}
			case "good":
				want[name] = rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "content")
				if err := k.Good(name, []byte(want[name])); err != nil {
					t.Fatal(err)
				}
			case "forget":
				delete(want, name)
				if err := k.Forget(name); err != nil {
					t.Fatal(err)
				}
			case "restart":
				k = &watch.Keeper{Dir: dir}
			}
			for _, name := range []string{"a", "b", "c"} {
				got, _, ok := k.LastGood(name)
				if content, kept := want[name]; ok != kept || string(got) != content {
					t.Fatalf("%s: got %q %v, want %q %v", name, got, ok, content, kept)
				}
			}
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"a.yaml":{"sha256":"d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35","size":1}}`))
	f.Add([]byte(`{"a.yaml":{"sha256":"d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35","size":1,"in":"4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce","at":7}}`))
	f.Add([]byte(`{"a.yaml":{"sha256":"d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35","size":1,"in":"../../passwd","at":-1}}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if index, err := watch.ParseIndex(b); (index == nil) != (err != nil) || len(index) > 2000 {
			t.Errorf("%d names, %v", len(index), err)
		}
	})
}
