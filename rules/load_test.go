package rules_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/rules"
)

var update = flag.Bool("update", false, "write golden files and generated parts of README.md")

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func good(t testing.TB) string {
	b, err := os.ReadFile("testdata/good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// folder is a file system of rule files: name, content, name, content.
func folder(files ...string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 0; i+1 < len(files); i += 2 {
		fsys[files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
	}
	return fsys
}

func load(t testing.TB, files ...string) *rules.Set {
	t.Helper()
	set, errs := rules.Load(folder(files...))
	for _, err := range errs {
		t.Fatal(err)
	}
	return set
}

// Each file of testdata/bad has one fault (but for many-faults) and beside it
// what Load says of it. What stands in a folder of its name is loaded with it.
func TestFaultsAreToldWithTheirPlace(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, path := range files {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			fsys := folder(name, string(content))
			beside := strings.TrimSuffix(path, ".yaml")
			others, _ := filepath.Glob(beside + "/*.yaml")
			lists, _ := filepath.Glob(beside + "/lists/*")
			for _, other := range append(others, lists...) {
				b, err := os.ReadFile(other)
				if err != nil {
					t.Fatal(err)
				}
				fsys[strings.TrimPrefix(filepath.ToSlash(other), filepath.ToSlash(beside)+"/")] = &fstest.MapFile{Data: b}
			}
			set, errs := rules.Load(fsys)
			if len(errs) == 0 || len(set.Rules()) != len(others) {
				t.Fatalf("got %d errors and %d rules, want errors and no rule but the %d beside", len(errs), len(set.Rules()), len(others))
			}
			var b strings.Builder
			for _, err := range errs {
				fmt.Fprintln(&b, err)
			}
			golden(t, strings.TrimSuffix(path, ".yaml")+".golden", b.String())
		})
	}
}

func TestEachFileStandsAlone(t *testing.T) {
	text := good(t)
	other := strings.Replace(text, "test.example", "test.other", 1)
	for _, test := range []struct {
		name   string
		files  []string
		ids    []rules.ID
		errors []string
	}{
		{"nothing", nil, []rules.ID{}, nil},
		{"a bad file does not hinder the others", []string{"a.yaml", text, "b.yaml", "id: [", "c.yaml", other}, []rules.ID{"test.example", "test.other"}, []string{"b.yaml:"}},
		{"the first file keeps an id", []string{"a.yaml", text, "b.yaml", text}, []rules.ID{"test.example"}, []string{`b.yaml:1:1: id: "test.example" is the id of the rule in a.yaml already`}},
		{"an id is free when its first file is bad", []string{"a.yaml", strings.Replace(text, "login.after", "logout", 1), "b.yaml", text}, []rules.ID{"test.example"}, []string{"a.yaml:9:5"}},
		{"a file with the wrong ending is told", []string{"a.yml", text}, []rules.ID{}, []string{"a.yml: rule files end in .yaml"}},
		{"other files are not rules", []string{"README.md", "# hello", ".hidden.yaml", "x", "sub/a.yaml", "x"}, []rules.ID{}, nil},
		{"too long", []string{"a.yaml", text + strings.Repeat("# long\n", 40_000)}, []rules.ID{}, []string{"a.yaml:1:1: 280"}},
		{"far too long", []string{"a.yaml", strings.Repeat("#", 5<<20)}, []rules.ID{}, []string{"a.yaml: reading the rule: 5242880 bytes"}},
		{"an alias bomb", []string{"a.yaml", "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\n"}, []rules.ID{}, []string{"a.yaml:1:4: anchor"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			set, errs := rules.Load(folder(test.files...))
			ids := []rules.ID{}
			for _, r := range set.Rules() {
				ids = append(ids, r.ID)
			}
			if diff := cmp.Diff(test.ids, ids); diff != "" {
				t.Errorf("rules (-want +got):\n%s", diff)
			}
			if len(test.errors) == 0 && len(errs) > 0 {
				t.Errorf("got %v, want no error", errs)
			}
			for i, want := range test.errors {
				if i >= len(errs) || !strings.HasPrefix(errs[i].Error(), want) {
					t.Errorf("error %d: got %v, want %s…", i, errs, want)
				}
			}
		})
	}
}

// FuzzLoad: a file is a rule or has faults, and a list beside it harms nobody.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(good(f)), []byte("203.0.113.0/24\ninclude a\n"))
	f.Add([]byte(edited(f, "when: tried >= 3", `when: tried >= 3 && listed("a", source.address)`)), []byte("192.0.2.1 # one\n"))
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	for _, path := range files {
		if b, err := os.ReadFile(path); err == nil {
			f.Add(b, []byte("192.0.2.0/24\n"))
		}
	}
	f.Fuzz(func(t *testing.T, content, list []byte) {
		set, errs := rules.Load(folder("a.yaml", string(content), "lists/a.networks", string(list)))
		faults := 0
		for _, err := range errs {
			if strings.HasPrefix(err.Error(), "a.yaml") {
				faults++
			}
		}
		if n := len(set.Rules()); n == 0 == (faults == 0) {
			t.Errorf("got %d rules and %d faults, want either a rule or faults: %v", n, faults, errs)
		}
		if len(errs) > 120 {
			t.Errorf("%d errors of two files", len(errs))
		}
	})
}
