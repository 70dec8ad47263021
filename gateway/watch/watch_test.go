package watch_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kidoban/kidoban/gateway/watch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const soon = 10 * time.Second // how long a test waits for what must come

// watching runs a watcher and passes on, for each change it tells, what see finds.
type watching struct {
	t       *testing.T
	changes chan string
	faults  chan error
}

func start(t *testing.T, o watch.Options, see func() string, paths ...string) *watching {
	t.Helper()
	w := &watching{t, make(chan string, 100), make(chan error, 100)}
	o.Error = func(err error) { w.faults <- err }
	if o.Settle == 0 {
		o.Settle = 100 * time.Millisecond
	}
	if o.Poll == 0 {
		o.Poll = time.Hour // notices alone
	}
	var inside atomic.Int32
	watcher := watch.New(paths, func() {
		if inside.Add(1) > 1 {
			t.Error("two calls at once")
		}
		w.changes <- see()
		inside.Add(-1)
	}, o)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := watcher.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return w
}

// want is the next change.
func (w *watching) want(want string) {
	w.t.Helper()
	select {
	case got := <-w.changes:
		if got != want {
			w.t.Fatalf("got %q, want %q", got, want)
		}
	case err := <-w.faults:
		w.t.Fatal(err)
	case <-time.After(soon):
		w.t.Fatalf("nothing was told within %v, want %q", soon, want)
	}
}

// wantNoMore is asked after a last change was told: nothing may be left over.
func (w *watching) wantNoMore() {
	w.t.Helper()
	select {
	case got := <-w.changes:
		w.t.Fatalf("told once more: %q", got)
	default:
	}
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// folder tells the files of dir with their content.
func folder(dir string) func() string {
	return func() string {
		files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
		if err != nil {
			return err.Error()
		}
		slices.Sort(files)
		var b strings.Builder
		for _, f := range files {
			content, err := os.ReadFile(f)
			if err != nil {
				content = []byte(err.Error())
			}
			fmt.Fprintf(&b, "%s=%s ", filepath.Base(f), content)
		}
		return strings.TrimSpace(b.String())
	}
}

// Each way to change files is told once, by notices alone and by looking alone.
func TestWaysToChange(t *testing.T) {
	for _, by := range []string{"notices", "looking"} {
		o := watch.Options{}
		if by == "looking" {
			o.Poll = 10 * time.Millisecond
		}
		run := func(name string, test func(t *testing.T, o watch.Options)) {
			t.Run(by+"/"+name, func(t *testing.T) {
				if by == "looking" {
					t.Cleanup(watch.WithoutNotices())
				}
				test(t, o)
			})
		}
		begin := func(t *testing.T, o watch.Options, dir string) *watching {
			w := start(t, o, folder(dir), dir)
			if by == "looking" {
				if err := <-w.faults; !strings.Contains(err.Error(), "the system gives no notice") {
					t.Fatal(err)
				}
			}
			return w
		}
		run("new, changed, deleted", func(t *testing.T, o watch.Options) {
			dir := t.TempDir()
			w := begin(t, o, dir)
			put(t, dir+"/a.yaml", "1")
			w.want("a.yaml=1")
			put(t, dir+"/a.yaml", "2")
			w.want("a.yaml=2")
			must(t, os.Rename(dir+"/a.yaml", dir+"/b.yaml"))
			w.want("b.yaml=2")
			must(t, os.Remove(dir+"/b.yaml"))
			w.want("")
			w.wantNoMore()
		})
		run("an editor's new file and rename", func(t *testing.T, o watch.Options) {
			dir := t.TempDir()
			put(t, dir+"/a.yaml", "1")
			w := begin(t, o, dir)
			for i := 2; i < 5; i++ {
				put(t, dir+"/.a.yaml.swp", "work")
				put(t, dir+"/.a.yaml.tmp", fmt.Sprint(i))
				must(t, os.Rename(dir+"/.a.yaml.tmp", dir+"/a.yaml"))
				must(t, os.Remove(dir+"/.a.yaml.swp"))
				w.want(fmt.Sprintf("a.yaml=%d", i))
			}
			w.wantNoMore()
		})
		run("an editor's backup and new file", func(t *testing.T, o watch.Options) {
			dir := t.TempDir()
			put(t, dir+"/a.yaml", "1")
			o.Settle = 300 * time.Millisecond
			o.Match = func(name string) bool { return strings.HasSuffix(name, ".yaml") }
			w := begin(t, o, dir)
			must(t, os.Rename(dir+"/a.yaml", dir+"/a.yaml~"))
			put(t, dir+"/a.yaml", "2")
			must(t, os.Remove(dir+"/a.yaml~"))
			w.want("a.yaml=2")
			w.wantNoMore()
		})
		run("truncated and written in pieces", func(t *testing.T, o watch.Options) {
			dir := t.TempDir()
			put(t, dir+"/a.yaml", "old")
			o.Settle = 250 * time.Millisecond // longer than it takes to write ten pieces
			w := begin(t, o, dir)
			f, err := os.Create(dir + "/a.yaml")
			must(t, err)
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for i := range 10 {
				fmt.Fprint(f, i)
				<-tick.C
			}
			must(t, f.Close())
			w.want("a.yaml=0123456789")
			w.wantNoMore()
		})
		run("the link that Kubernetes swaps", func(t *testing.T, o watch.Options) {
			dir := t.TempDir()
			version := func(n int) {
				real := fmt.Sprintf("..2026_11_23_09_00_%02d", n)
				must(t, os.Mkdir(filepath.Join(dir, real), 0o700))
				put(t, filepath.Join(dir, real, "a.yaml"), fmt.Sprint(n))
				must(t, os.Symlink(real, dir+"/..data_tmp"))
				must(t, os.Rename(dir+"/..data_tmp", dir+"/..data"))
				if n > 1 {
					must(t, os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..2026_11_23_09_00_%02d", n-1))))
				}
			}
			version(1)
			must(t, os.Symlink("..data/a.yaml", dir+"/a.yaml"))
			w := begin(t, o, dir)
			for n := 2; n < 5; n++ {
				version(n)
				w.want(fmt.Sprintf("a.yaml=%d", n))
			}
			w.wantNoMore()
		})
		run("a touch is no change", func(t *testing.T, o watch.Options) {
			dir := t.TempDir()
			put(t, dir+"/a.yaml", "1")
			o.Settle = 300 * time.Millisecond
			w := begin(t, o, dir)
			must(t, os.Chtimes(dir+"/a.yaml", time.Now(), time.Now().Add(time.Hour)))
			put(t, dir+"/a.yaml", "1")
			put(t, dir+"/b.yaml", "2")
			w.want("a.yaml=1 b.yaml=2")
			w.wantNoMore()
		})
	}
}

func TestAFileAmongOthers(t *testing.T) {
	dir := t.TempDir()
	file := dir + "/policy.yaml"
	w := start(t, watch.Options{}, func() string { b, _ := os.ReadFile(file); return string(b) }, file)
	put(t, file, "1") // it was not there
	w.want("1")
	put(t, dir+"/other.yaml", "x")
	put(t, file, "2")
	w.want("2")
	w.wantNoMore()
}

// What changed between New and Run is not missed.
func TestChangesBeforeRun(t *testing.T) {
	dir := t.TempDir()
	changes := make(chan struct{}, 10)
	w := watch.New([]string{dir}, func() { changes <- struct{}{} }, watch.Options{Settle: time.Millisecond, Poll: time.Hour})
	put(t, dir+"/a.yaml", "1")
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { _ = w.Run(ctx) })
	defer done.Wait()
	defer cancel()
	select {
	case <-changes:
	case <-time.After(soon):
		t.Error("nothing was told")
	}
}

func TestAFolderGoesAndComesBack(t *testing.T) {
	parent := t.TempDir()
	dir := parent + "/rules"
	must(t, os.Mkdir(dir, 0o700))
	put(t, dir+"/a.yaml", "1")
	w := start(t, watch.Options{Poll: 20 * time.Millisecond}, folder(dir), dir)
	must(t, os.Rename(dir, parent+"/away"))
	w.want("")
	must(t, os.Rename(parent+"/away", dir))
	w.want("a.yaml=1")
	must(t, os.RemoveAll(dir))
	w.want("")
	must(t, os.MkdirAll(dir, 0o700))
	put(t, dir+"/a.yaml", "2")
	w.want("a.yaml=2")
	// The new folder gives notices as well.
	put(t, dir+"/a.yaml", "3")
	w.want("a.yaml=3")
	w.wantNoMore()
}

func TestWhatIsTooMuchIsTold(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/big.yaml", strings.Repeat("x", 1<<20+1))
	for i := range 2005 {
		put(t, fmt.Sprintf("%s/f%04d.yaml", dir, i), "x")
	}
	must(t, os.Mkdir(dir+"/folder.yaml", 0o700))
	var faults []string
	watch.New([]string{dir}, func() {}, watch.Options{Error: func(err error) { faults = append(faults, err.Error()) }})
	if len(faults) != 7 || !strings.Contains(faults[0], "big.yaml: is not watched: it has 1048577 bytes, and there is room for 1048576") || !strings.Contains(faults[1], "f1999.yaml: is not watched: there are more than 2000 files") {
		t.Errorf("got %d faults: %q", len(faults), faults)
	}
}

// While changed runs nothing is told; what changed meanwhile is told after it.
func TestChangesDuringACall(t *testing.T) {
	dir := t.TempDir()
	entered, release := make(chan struct{}, 10), make(chan struct{})
	w := start(t, watch.Options{}, func() string {
		entered <- struct{}{}
		<-release
		return folder(dir)()
	}, dir)
	put(t, dir+"/a.yaml", "1")
	<-entered
	put(t, dir+"/a.yaml", "2")
	put(t, dir+"/a.yaml", "3")
	close(release)
	w.want("a.yaml=3") // read late
	w.want("a.yaml=3")
	w.wantNoMore()
}
