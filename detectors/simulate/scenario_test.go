package simulate_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors/simulate"
)

// fsOf holds files, each a name followed by its content.
func fsOf(files ...string) fs.FS {
	fsys := fstest.MapFS{}
	for i := 0; i < len(files); i += 2 {
		fsys[files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
	}
	return fsys
}

// Each file of testdata/bad has one fault (but for many.yaml), and beside it what
// Decode says.
func TestBadScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in testdata/bad: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = simulate.Decode(filepath.Base(file), data)
			if err == nil {
				t.Fatal("it is taken")
			}
			got, golden := err.Error()+"\n", strings.TrimSuffix(file, ".yaml")+".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("faults (-want +got):\n%s", d)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	good := strings.TrimPrefix(townScenario, "\n")
	all, err := simulate.Load(fsOf("b.yaml", good, "a.yaml", strings.Replace(good, "id: town", "id: first", 1), "c.txt", "not one"))
	if err != nil || len(all) != 2 || all[0].ID != "first" || all[1].ID != "town" {
		t.Fatalf("got %v, %v; want two, in the order of names", all, err)
	}
	_, err = simulate.Load(fsOf("a.yaml", "id: [", "b.yaml", good, "c.yaml", "form: odd"))
	if err == nil || !strings.Contains(err.Error(), "a.yaml: ") || !strings.Contains(err.Error(), "c.yaml: ") || strings.Contains(err.Error(), "b.yaml") {
		t.Errorf("got %v, want the faults of both bad files", err)
	}
}

func TestSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, "14d": 14 * 24 * time.Hour, "0s": 0, "1.5d": 36 * time.Hour, "1h30m": 90 * time.Minute} {
		s := decoded(t, strings.Replace(townScenario, "length: 7d", "warm: "+text+"\nlength: 7d", 1))
		if got := time.Duration(s.Warm); got != want {
			t.Errorf("%s is %v, want %v", text, got, want)
		}
	}
}

// Whatever is read can be told, or is refused with a reason.
func FuzzDecode(f *testing.F) {
	seeds, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range seeds {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(everything))
	f.Add([]byte(townScenario))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := simulate.Decode("fuzz.yaml", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "fuzz.yaml: ") {
				t.Errorf("%v: the error does not say where", err)
			}
			return
		}
		if faults := s.Faults(); len(faults) > 0 {
			t.Errorf("it was taken with faults: %v", faults)
		}
		if faults := s.Draw(1, 0.5).Faults(); len(faults) > 0 {
			t.Errorf("numbers that were drawn have faults: %v", faults)
		}
		heard(t, small(s), 1)
	})
}

// TestScenariosAreFrozen: thresholds were set after these stories were written. Who
// changes a story changes the hash here, and every figure that was reported before.
func TestScenariosAreFrozen(t *testing.T) {
	const want = "6506f42245c9ec8321ec7a54cc25e24f7e92b2bc630ff6f68dfc030f6d550c39"
	got, err := simulate.Hash(simulate.Shipped)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("scenario files: %s, want %s", got, want)
	}
}
