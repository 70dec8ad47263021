package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kidoban/kidoban/detectors/simulate"
)

// simulateOptions are the flags of kidoban simulate run.
type simulateOptions struct {
	seeds                  []uint64
	spread, scale          float64
	busier                 float64 // times as many people on days that thresholds are held against; 0: none are played
	jobs                   int
	baselines, json, check bool
	budget                 bool // report on thresholds alone
	html, language         string

	pack    fs.FS // rules
	defense func() (simulate.Defense, error)
	live    *simulate.Live // plays instead of defense; or nil
	now     func() time.Time
}

// The bounds of a report.
const (
	seedsMax    = 100
	jobsMax     = 64
	runsMax     = 20_000  // a result has up to 10 KiB
	scenarioMax = 1 << 16 // bytes of a file
)

func (o *simulateOptions) valid() error {
	switch {
	case !(o.spread >= 0 && o.spread <= 0.9):
		return fmt.Errorf("--spread %v: want a share from 0 to 0.9, such as 0.5", o.spread)
	case !(o.scale >= 0.001 && o.scale <= 10):
		return fmt.Errorf("--scale %v: want 0.001 to 10", o.scale)
	case o.busier != 0 && !(o.busier >= 1 && o.busier <= 100):
		return fmt.Errorf("--busier %v: want 1 to 100 times, or 0 for no busier days", o.busier)
	case o.jobs < 1 || o.jobs > jobsMax:
		return fmt.Errorf("--jobs %d: want 1 to %d", o.jobs, jobsMax)
	case !slices.Contains(simulate.Languages, o.language):
		return fmt.Errorf("--language %q: want one of %s", o.language, strings.Join(simulate.Languages, ", "))
	}
	return nil
}

// seedList reads seeds such as 11-20 or 1,5,9.
func seedList(text string) ([]uint64, error) {
	var all []uint64
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		a, err := strconv.ParseUint(from, 10, 32)
		b, err2 := strconv.ParseUint(to, 10, 32)
		if err != nil || err2 != nil || a > b {
			return nil, fmt.Errorf("--seeds %q: want numbers and ranges such as 11-20 or 1,5,9", text)
		}
		if b-a >= seedsMax || len(all)+int(b-a) >= seedsMax {
			return nil, fmt.Errorf("--seeds %q: want at most %d", text, seedsMax)
		}
		for s := a; s <= b; s++ {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

// chosen finds the scenarios that arguments name, each once, and says by which hash
// their files are known.
func chosen(args []string) (all []simulate.Scenario, hash string, err error) {
	shipped, err := simulate.Load(simulate.Shipped)
	if err != nil {
		return nil, "", err
	}
	var hashes []string
	seen := make(map[string]bool)
	add := func(s simulate.Scenario) error {
		if seen[s.ID] {
			return fmt.Errorf("two scenarios have the id %s", s.ID)
		}
		seen[s.ID] = true
		all = append(all, s)
		return nil
	}
	ships := false
	for _, arg := range args {
		if strings.ContainsAny(arg, `/\`) || strings.HasSuffix(arg, ".yaml") {
			data, err := readScenario(arg)
			if err != nil {
				return nil, "", err
			}
			s, err := simulate.Decode(arg, data)
			if err != nil {
				return nil, "", err
			}
			if err := add(s); err != nil {
				return nil, "", err
			}
			hashes = append(hashes, fmt.Sprintf("%s %x", filepath.Base(arg), sha256.Sum256(data)))
			continue
		}
		found := false
		for _, s := range shipped {
			fits, err := path.Match(arg, s.ID)
			if err != nil {
				return nil, "", fmt.Errorf("%q is no pattern: %w", arg, err)
			}
			if !fits && arg != "all" {
				continue
			}
			found, ships = true, true
			if !seen[s.ID] {
				if err := add(s); err != nil {
					return nil, "", err
				}
			}
		}
		if !found {
			return nil, "", fmt.Errorf("no scenario %q: kidoban simulate list names those that ship; a file of your own is named with a /, such as ./%s.yaml", arg, arg)
		}
	}
	if ships {
		h, err := simulate.Hash(simulate.Shipped)
		if err != nil {
			return nil, "", err
		}
		hashes = append([]string{h}, hashes...)
	}
	return all, strings.Join(hashes, ", "), nil
}

func readScenario(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, scenarioMax+1))
	if err == nil && len(data) > scenarioMax {
		err = fmt.Errorf("%s: over %d bytes", file, scenarioMax)
	}
	return data, err
}

// simulateTask is one run to play.
type simulateTask struct {
	scenario simulate.Scenario
	seed     uint64
	spread   float64
	name     string // of the defense
	defense  func() (simulate.Defense, error)
	live     *simulate.Live // or nil
	busier   bool           // for thresholds alone
}

func (t simulateTask) play(ctx context.Context) (simulate.Result, error) {
	if t.live != nil {
		r, err := t.live.Run(ctx, t.live.Fit(t.scenario), t.seed)
		r.Defense = t.name
		return r, err
	}
	d, err := t.defense()
	if err != nil {
		return simulate.Result{}, err
	}
	r, err := simulate.Run(ctx, t.scenario.Draw(t.seed, t.spread), t.seed, t.name, d)
	r.Spread = t.spread
	if err != nil {
		return r, fmt.Errorf("%s, seed %d, %s: %w", t.scenario.ID, t.seed, t.name, err)
	}
	return r, nil
}

// ours is the shipped defense in reports.
const ours = "kidoban"

// tasks lists the runs: every scenario and seed, before others where they are compared,
// drawn where there is a spread, and days without an attack once more where busier ones
// are asked for.
func (o *simulateOptions) tasks(scenarios []simulate.Scenario) []simulateTask {
	var all []simulateTask
	for _, s := range scenarios {
		s = s.Scale(o.scale)
		for _, seed := range o.seeds {
			all = append(all, simulateTask{s, seed, 0, ours, o.defense, o.live, false})
			if o.spread != 0 {
				all = append(all, simulateTask{s, seed, o.spread, ours, o.defense, o.live, false})
			}
			if o.baselines {
				for _, b := range simulate.Baselines() {
					all = append(all, simulateTask{s, seed, 0, b.Name, func() (simulate.Defense, error) { return b.New(), nil }, nil, false})
				}
			}
			if o.busier != 0 && len(s.Raids) == 0 {
				all = append(all, simulateTask{s.Busier(o.busier), seed, 0, ours, o.defense, o.live, true})
			}
		}
	}
	return all
}

// simulate plays what args name and reports. Nothing is reported of a simulation that
// is cut short.
func (o *simulateOptions) simulate(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	scenarios, hash, err := chosen(args)
	if err != nil {
		return err
	}
	packHash, err := simulate.Hash(o.pack)
	if err != nil {
		return fmt.Errorf("the rules: %w", err)
	}
	tasks := o.tasks(scenarios)
	if o.live != nil && len(tasks) != 1 {
		return fmt.Errorf("%d runs: --live plays one scenario with one seed, and no baselines", len(tasks))
	}
	if len(tasks) > runsMax {
		return fmt.Errorf("%d runs: want at most %d, so give fewer scenarios or seeds", len(tasks), runsMax)
	}
	results, err := o.play(ctx, tasks, stderr)
	if err != nil {
		return err
	}
	report := simulate.Report{
		Made: o.now().UTC().Truncate(time.Second), Scenarios: hash, Rules: packHash, Seeds: o.seeds, Spread: o.spread, Scale: o.scale, Defense: ours,
		Titles: make(map[string]simulate.Words), Stories: make(map[string]simulate.Words),
	}
	report.Results, report.Thresholds = o.sorted(tasks, results)
	if o.budget {
		return o.writeBudget(&report, stdout)
	}
	for _, s := range scenarios {
		report.Titles[s.ID], report.Stories[s.ID] = s.Title, s.Story
	}
	if o.html != "" {
		var page bytes.Buffer
		if err := report.WriteHTML(&page, o.language); err != nil {
			return err
		}
		if err := os.WriteFile(o.html, page.Bytes(), 0o644); err != nil {
			return fmt.Errorf("writing the page: %w", err)
		}
	}
	if o.json {
		err = report.WriteJSON(stdout)
	} else {
		err = report.WriteTable(stdout, o.language)
	}
	if err != nil || !o.check {
		return err
	}
	missed := 0
	for _, j := range report.Judge() {
		if j.Verdict == simulate.Missed {
			missed++
		}
	}
	if missed > 0 {
		return fmt.Errorf("targets missed: %d", missed)
	}
	return nil
}

// sorted tells results of busier days from the others.
func (o *simulateOptions) sorted(tasks []simulateTask, results []simulate.Result) (plain []simulate.Result, t *simulate.Thresholds) {
	if o.busier != 0 {
		t = &simulate.Thresholds{Busier: o.busier}
	}
	for i, r := range results {
		switch {
		case tasks[i].busier:
			t.Bustle = append(t.Bustle, r)
			continue
		case t != nil && r.Defense == ours && r.Spread == 0 && len(tasks[i].scenario.Raids) == 0:
			t.Normal = append(t.Normal, r)
		}
		plain = append(plain, r)
	}
	return plain, t
}

// play plays tasks, so many at a time as o says, and returns their results in the order
// of tasks. The first error ends it.
func (o *simulateOptions) play(ctx context.Context, tasks []simulateTask, stderr io.Writer) ([]simulate.Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make([]simulate.Result, len(tasks))
	var next, done, events atomic.Int64
	begun := time.Now()
	var workers sync.WaitGroup
	for range min(o.jobs, len(tasks)) {
		workers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(tasks) {
					return
				}
				r, err := tasks[i].play(ctx)
				if err != nil {
					cancel(err)
					return
				}
				results[i] = r
				done.Add(1)
				events.Add(int64(r.Events))
			}
		})
	}
	over := make(chan struct{})
	go func() {
		workers.Wait()
		close(over)
	}()
	v := newView(stderr, phrases("en"))
	every := 10 * time.Second
	if v.live {
		every = 250 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	line := func() string {
		return fmt.Sprintf("%d of %d runs, %s log-ins, %s", done.Load(), len(tasks), number(events.Load()), time.Since(begun).Round(time.Second))
	}
	for {
		select {
		case <-tick.C:
			i := min(int(done.Load()), len(tasks)-1)
			v.show(line()+", now "+tasks[i].scenario.ID, false)
		case <-over:
			v.show(line(), true)
			if err := context.Cause(ctx); err != nil {
				if errors.Is(err, context.Canceled) {
					return nil, errors.New("the simulation was cut short")
				}
				return nil, err
			}
			return results, nil
		}
	}
}
