package watch_test

import (
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
			switch rapid.SampledFrom([]string{"good", "forget", "restart"}).Draw(t, "step") {
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
	f.Add([]byte(`null`))
	f.Add([]byte(`{"":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if index, err := watch.ParseIndex(b); (index == nil) != (err != nil) || len(index) > 2000 {
			t.Errorf("%d names, %v", len(index), err)
		}
	})
}
