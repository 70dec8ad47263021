package rules

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/kidoban/kidoban/detectors"
)

// Set is rules ready to run. It is safe for concurrent use once it was loaded
// and has adopted what it should.
type Set struct {
	rules    []*compiled         // by severity, then id
	counters map[string]*counter // by identity; equal ones are kept once
	order    []*counter          // the same, in the order of first use
	asked    []Stage             // where some rule is

	plain   *language // of the rules that ask no list
	listing string    // digest of the lists that the others ask

	limits Limits
	pool   *pool // of what the counters share
}

// compiled is a rule with its condition and counters.
type compiled struct {
	Rule
	when     *expression
	where    map[string]*expression // by name of the counter
	ratio    map[string]*expression // likewise
	counters map[string]int         // places in the set's order by name; filled by newSet
	failure  atomic.Pointer[error]  // latest error of an evaluation
	except   []*exemption
	listing  bool // asks lists
}

// Load reads every *.yaml at the root of fsys. Each file stands alone: one that
// does not check, whose id an earlier file has, or whose own tests fail is left
// out, and the errors say where (file:line:column) and what was expected; the
// others are in the set, which is never nil.
func Load(fsys fs.FS) (*Set, []error) { return load(fsys, noHistory{}, nil) }

// History remembers the last good version of files, as watch.Keeper of the gateway
// does; or watch.Later, which takes notes while files are loaded and keeps them once
// the rules are in force.
type History interface {
	// Good remembers content as the last good version of a file.
	Good(name string, content []byte) error
	// LastGood is what Good remembered, and its SHA-256 in hex.
	LastGood(name string) (content []byte, hash string, ok bool)
	// Names lists the files that have a last good version.
	Names() []string
	// Forget drops the version of a file that was deleted.
	Forget(name string) error
}

// LoadWithHistory is as [Load], but of a file that Load would leave out the last
// good version stays in force, also after a restart; each error says which, by the
// first 12 digits of its SHA-256 (see Rule.Generation). A file that is deleted takes
// its rule and its history away. While the folder cannot be read all last good
// versions stay. What cannot be remembered is told as an error, and in force.
//
// Of a list the last good version stays too: where the file goes bad, where it is
// deleted while rules ask it, and where with another content a rule that was in force
// cannot be, such as for a test that fails. The errors name the list and its rules.
func LoadWithHistory(fsys fs.FS, h History) (*Set, []error) { return load(fsys, h, nil) }

// Reload is LoadWithHistory where old was loaded before: a file that it has, by
// SHA-256, is neither compiled nor tested again, unless it asks lists and one of them
// changed. The set has counted nothing; see [Set.Adopt]. Old may be in use meanwhile.
// Old and h may be nil.
func Reload(old *Set, fsys fs.FS, h History) (*Set, []error) {
	if h == nil {
		h = noHistory{}
	}
	return load(fsys, h, old)
}

// remember has h keep what is good.
func remember(h History, good map[string][]byte) (faults []error) {
	for _, name := range slices.Sorted(maps.Keys(good)) {
		if err := h.Good(name, good[name]); err != nil {
			faults = append(faults, fmt.Errorf("%s: is in force, but not remembered for the day it goes bad: %w", name, err))
		}
	}
	return faults
}

// noHistory remembers nothing.
type noHistory struct{}

func (noHistory) Good(string, []byte) error              { return nil }
func (noHistory) LastGood(string) ([]byte, string, bool) { return nil, "", false }
func (noHistory) Names() []string                        { return nil }
func (noHistory) Forget(string) error                    { return nil }

func load(fsys fs.FS, h History, old *Set) (*Set, []error) {
	refused := map[string]error{}
	for {
		r := &reading{shelf: readLists(fsys, h, refused), history: h, owner: map[ID]string{}, good: map[string][]byte{}, spoilers: map[string]error{}}
		if err := r.read(fsys, old); err != nil {
			return newSet(nil), append(r.shelf.faults, err)
		}
		if len(r.spoilers) == 0 {
			return r.set(), r.finish()
		}
		maps.Copy(refused, r.spoilers) // none was refused before
		old = r.set()
	}
}

// reading is a folder while it is read.
type reading struct {
	*loader
	shelf   *shelf
	history History

	rules    []*compiled
	owner    map[ID]string     // file of each rule in force
	good     map[string][]byte // files that are in force as they are
	faults   []error
	there    []string         // rule files; nil: the folder cannot be read
	spoilers map[string]error // lists that would take a rule out of force, and how
	before   *shelf           // the last good lists; nil: not needed yet
	former   *language        // that asks them
}

func (r *reading) read(fsys fs.FS, old *Set) (err error) {
	if r.loader, err = newLoader(r.shelf.lists, old); err != nil {
		return err
	}
	r.there, r.faults = ruleFiles(fsys)
	names := r.there
	if names == nil {
		names = slices.DeleteFunc(r.history.Names(), isList)
	}
	for _, name := range names {
		runtime.Gosched() // requests go first
		var errs []error
		if r.there == nil {
			errs = []error{fmt.Errorf("%s: the folder cannot be read", name)}
		} else if content, err := readFile(fsys, name); err != nil {
			errs = []error{fmt.Errorf("%s: reading the rule: %w", name, err)}
		} else if errs = r.use(name, content); len(errs) == 0 {
			r.good[name] = content
		}
		if len(errs) > 0 {
			r.back(name, errs)
		}
	}
	return nil
}

// use puts a rule in force.
func (r *reading) use(name string, content []byte) []error {
	rule, errs := r.load(name, content)
	if len(errs) > 0 {
		return errs
	}
	if other := r.owner[rule.ID]; other != "" {
		return []error{fmt.Errorf("%s:1:1: id: %q is the id of the rule in %s already", name, rule.ID, other)}
	}
	r.owner[rule.ID] = name
	r.rules = append(r.rules, rule)
	return nil
}

// back puts the last good version of a rule in force, where it still can be, and tells
// what is wrong with the file.
func (r *reading) back(name string, errs []error) {
	if content, hash, ok := r.history.LastGood(name); ok {
		stays := r.use(name, content)
		if len(stays) > 0 {
			r.blameLists(name, content, stays[0])
		}
		for i, err := range errs {
			if len(stays) == 0 {
				errs[i] = fmt.Errorf("%w; its version %.12s stays in force", err, hash)
			} else {
				errs[i] = fmt.Errorf("%w; its version %.12s cannot stay in force: %w", err, hash, stays[0])
			}
		}
	}
	r.faults = append(r.faults, errs...)
}

// blameLists finds the lists that changed since a rule was good, if it is for them that
// it cannot be in force.
func (r *reading) blameLists(name string, content []byte, fault error) {
	if !asksLists(content) {
		return
	}
	if r.before == nil {
		r.before = readLists(nothing{}, r.history, nil)
	}
	if r.former == nil {
		l, err := newLanguage(r.before.lists)
		if err != nil {
			return // that of the other lists was made a moment ago
		}
		r.former = l
	}
	was, errs := r.former.load(name, content)
	if len(errs) > 0 {
		return
	}
	for _, file := range r.shelf.spoilers(was, r.before) {
		r.spoilers[file] = fmt.Errorf("%s: with this list %w", file, fault)
	}
}

// nothing is an empty folder.
type nothing struct{}

func (nothing) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// set is the rules in force.
func (r *reading) set() *Set {
	s := newSet(r.rules)
	s.plain, s.listing = r.plain, r.listing
	return s
}

// finish has the history remember what is good and forget what was deleted, and returns
// all faults.
func (r *reading) finish() []error {
	faults, idle := r.shelf.report(r.rules)
	faults = append(faults, r.faults...)
	r.shelf.good(r.good)
	faults = append(faults, remember(r.history, r.good)...)
	if r.there == nil {
		return faults
	}
	for _, name := range r.history.Names() {
		if !isList(name) && !slices.Contains(r.there, name) || slices.Contains(idle, name) {
			if err := r.history.Forget(name); err != nil {
				faults = append(faults, err)
			}
		}
	}
	return faults
}

// loader compiles rules, or finds them compiled.
type loader struct {
	plain   *language // for rules that ask no list: it outlives every list
	asking  *language // for those that do; nil: not needed yet
	lists   lists
	listing string               // digest of the lists
	done    map[string]*compiled // of the set before, by SHA-256 of the file
}

func newLoader(known lists, old *Set) (*loader, error) {
	l := &loader{lists: known, listing: known.digest(), done: map[string]*compiled{}}
	if old == nil || old.plain == nil {
		var err error
		l.plain, err = newLanguage(nil)
		return l, err
	}
	l.plain = old.plain
	for _, r := range old.rules {
		if !r.listing || old.listing == l.listing {
			l.done[r.Generation] = r
		}
	}
	return l, nil
}

// load is the rule in a file, which may be known.
func (l *loader) load(file string, content []byte) (*compiled, []error) {
	sum := sha256.Sum256(content)
	if known := l.done[hex.EncodeToString(sum[:])]; known != nil {
		c := known.fresh()
		c.File = file
		return c, nil
	}
	if !asksLists(content) {
		return l.plain.load(file, content)
	}
	if l.asking == nil {
		var err error
		if l.asking, err = newLanguage(l.lists); err != nil {
			return nil, []error{err}
		}
	}
	c, errs := l.asking.load(file, content)
	if c != nil {
		c.listing = true
	}
	return c, errs
}

// asksLists reports whether a rule may ask lists.
func asksLists(content []byte) bool {
	return bytes.Contains(content, []byte(listedFunction+"(")) || bytes.Contains(content, []byte("list:"))
}

// ruleFiles are the names of the rule files at the root of fsys; nil when it cannot
// be read.
func ruleFiles(fsys fs.FS) (names []string, faults []error) {
	files, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, []error{fmt.Errorf("reading the folder of rules: %w", err)}
	}
	names = []string{}
	for _, file := range files {
		name := file.Name()
		if file.IsDir() || strings.HasPrefix(name, ".") {
			continue
		}
		if strings.HasSuffix(name, ".yml") {
			faults = append(faults, fmt.Errorf("%s: rule files end in .yaml: rename it, or it stays out of force", name))
		}
		if strings.HasSuffix(name, ".yaml") {
			names = append(names, name)
		}
	}
	return names, faults
}

// readFile reads no more than it takes to see that a file is too long.
func readFile(fsys fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, err
	}
	if info.Size() > 16*maxFile {
		return nil, fmt.Errorf("%d bytes, want at most %d", info.Size(), maxFile)
	}
	return fs.ReadFile(fsys, name)
}

// load decodes, compiles and tests one rule.
func (l *language) load(file string, content []byte) (*compiled, []error) {
	r, faults := decode(file, content)
	if r == nil {
		return nil, faults
	}
	r.lists = l.lists
	c := &compiled{where: map[string]*expression{}, ratio: map[string]*expression{}}
	speech, err := l.dialect(r.On)
	if err != nil {
		r.fault(r.node, "%v", err)
		return nil, r.errors()
	}
	env := speech.condition
	r.ranges = map[string]values{}
	for _, name := range r.counts {
		if where := r.where[name.Value]; where != nil {
			c.where[name.Value] = r.compile(l.event, where, "count."+name.Value+".where")
		}
		if ratio := r.ratio[name.Value]; ratio != nil {
			c.ratio[name.Value] = r.compile(l.event, ratio, "count."+name.Value+".ratio")
		}
		r.ranges[name.Value] = counterRange(r.Count[name.Value])
		extended, err := env.Extend(r.Count[name.Value].variable(name.Value))
		if err != nil {
			r.fault(name, "count.%s: %v", name.Value, err)
			continue
		}
		env = extended
	}
	if r.when != nil {
		c.when = r.compile(env, r.when, "when")
	}
	if c.when != nil {
		for _, name := range r.counts {
			if !slices.Contains(c.when.names, name.Value) {
				r.fault(name, "count.%s: when does not use it: remove it, or use it", name.Value)
			}
		}
	}
	c.except = r.compileExemptions(speech.event)
	r.check()
	if len(r.faults) > 0 {
		return nil, r.errors()
	}
	c.Rule = r.Rule
	c.Lists = c.asked(l.lists)
	r.try(c)
	return c, r.errors()
}

// asked are the lists that r asks, and their digests; nil: none.
func (r *compiled) asked(known lists) map[string]string {
	var names []string
	expressions := slices.Concat([]*expression{r.when}, slices.Collect(maps.Values(r.where)), slices.Collect(maps.Values(r.ratio)))
	for _, x := range r.except {
		if x.list != nil {
			names = append(names, x.list.name)
		}
		expressions = append(expressions, x.when)
	}
	for _, x := range expressions {
		if x != nil {
			names = append(names, x.lists...)
		}
	}
	var all map[string]string
	for _, name := range names {
		if all == nil {
			all = map[string]string{}
		}
		all[name] = known[name].digest
	}
	return all
}

// try runs the rule's own tests.
func (r *draft) try(c *compiled) {
	hits, events, cost := 0, 0, c.when.cost
	for _, x := range c.where {
		cost += x.cost
	}
	for _, x := range c.ratio {
		cost += x.cost
	}
	for _, t := range r.trials {
		if t.Expect != nil {
			hits++
		}
		for _, g := range t.given {
			events += g.repeat
		}
	}
	switch {
	case hits == 0 || hits == len(r.trials):
		r.fault(r.node, "tests: %d tests expect a match and %d expect none: want at least one of each", hits, len(r.trials)-hits)
		return
	case events > maxTrialEvents:
		r.fault(r.node, "tests: %d events in all, want at most %d", events, maxTrialEvents)
		return
	}
	if total := cost * uint64(events); total > maxTrialCost {
		r.fault(r.node, "tests: may cost %d units, want at most %d: cheaper conditions or fewer events", total, maxTrialCost)
		return
	}
	for _, t := range r.trials {
		if err := t.run(c); err != nil {
			r.fault(t.node, "tests: %q fails: %v", t.Name, err)
		}
	}
}

// newSet joins rules. Equal counters become one.
func newSet(rules []*compiled) *Set {
	s := &Set{rules: rules, counters: map[string]*counter{}}
	slices.SortFunc(s.rules, func(a, b *compiled) int {
		if c := slices.Index(severities, a.Severity) - slices.Index(severities, b.Severity); c != 0 {
			return c
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	for _, r := range s.rules {
		if !s.Asks(r.On) {
			s.asked = append(s.asked, r.On)
		}
		r.counters = make(map[string]int, len(r.Count))
		for _, name := range slices.Sorted(maps.Keys(r.Count)) {
			spec := r.Count[name]
			c := s.counters[spec.identity()]
			if c == nil {
				c = newCounter(spec, r.where[name], r.ratio[name])
				s.counters[spec.identity()] = c
				s.order = append(s.order, c)
			}
			r.counters[name] = slices.Index(s.order, c)
		}
	}
	s.Limit(Limits{})
	return s
}

// fresh is r without state.
func (r *compiled) fresh() *compiled {
	c := &compiled{Rule: r.Rule, when: r.when, where: r.where, ratio: r.ratio, listing: r.listing}
	for _, x := range r.except {
		c.except = append(c.except, x.fresh())
	}
	return c
}

// Fresh is a set of the same rules that has counted nothing. Unlike loading them again
// it does not run their tests.
func (s *Set) Fresh() *Set {
	rules := make([]*compiled, len(s.rules))
	for i, r := range s.rules {
		rules[i] = r.fresh()
	}
	fresh := newSet(rules)
	fresh.plain, fresh.listing = s.plain, s.listing
	fresh.Limit(s.limits)
	return fresh
}

// Adopt takes over the counts of old where both sets count the same, so that a
// reload forgets nothing. Call it before the first Observe, and do not use old
// for observing after it.
func (s *Set) Adopt(old *Set) {
	if old == nil {
		return
	}
	s.adoptExempted(old)
	for i, c := range s.order {
		id := c.identity()
		if kept := old.counters[id]; kept != nil {
			kept.settle(s.room())
			s.order[i], s.counters[id] = kept, kept
		}
	}
}

// Rules returns the rules in force, in the order of their findings.
func (s *Set) Rules() []Rule {
	rules := make([]Rule, len(s.rules))
	for i, r := range s.rules {
		rules[i] = r.Rule
	}
	return rules
}

// Observe counts e. Its time is the only clock.
func (s *Set) Observe(e detectors.Event) {
	f := newFacts(&e, nil, s.order)
	defer f.release()
	for i, c := range s.order {
		if err := c.observe(f); err != nil {
			s.blame(i, err)
		}
	}
}

// blame notes an error of a shared counter with the rules that use it.
func (s *Set) blame(place int, err error) {
	for _, r := range s.rules {
		for name, of := range r.counters {
			if of == place {
				err := fmt.Errorf("rule %s: count.%s: %w", r.ID, name, err)
				r.failure.Store(&err)
			}
		}
	}
}

// Evaluate asks the rules of a stage about e and returns what matched, by
// severity and then id. It changes no count: at login.before call it before e
// was observed, at login.after when the detectors and the set have observed e,
// with the signals assessed after that. A condition that cannot be evaluated
// does not match; see [Set.Errors].
func (s *Set) Evaluate(stage Stage, e detectors.Event, signals []detectors.Signal) []Finding {
	var findings []Finding
	f := newFacts(&e, signals, s.order)
	defer f.release()
	for _, r := range s.rules {
		if r.On != stage {
			continue
		}
		f.rule = r
		matched, err := r.when.holds(f)
		if err != nil {
			err = fmt.Errorf("rule %s: when: %w", r.ID, err)
			r.failure.Store(&err)
		}
		if matched && !r.exempts(f) {
			findings = append(findings, r.finding(f))
		}
	}
	return findings
}

// Errors returns the latest error of each rule whose condition could not be
// evaluated, such as a division by a count of 0. Until it is mended such a rule
// does not match when it fails.
func (s *Set) Errors() []error {
	var errs []error
	for _, r := range s.rules {
		if err := r.failure.Load(); err != nil {
			errs = append(errs, *err)
		}
	}
	return errs
}

func (r *compiled) finding(f *facts) Finding {
	found := Finding{Rule: r.ID, Title: r.Title, Severity: r.Severity, Generation: r.Generation,
		Mode: Shadow, Time: f.event.Time, Values: map[string]any{}, Then: r.proposals(f.event), Event: f.event.Key}
	if slices.ContainsFunc(found.Then, func(p Response) bool { return p.Mode == Enforce }) {
		found.Mode = Enforce
	}
	var parts, whys []string
	for _, name := range r.when.names {
		if _, ok := variableIndex[name]; ok {
			continue
		}
		var value float64
		if place, ok := r.counters[name]; ok {
			value = f.number(place)
		} else {
			signal := f.signal(name)
			value = signal.Value
			if signal.Why != "" && !slices.Contains(whys, signal.Why) {
				whys = append(whys, signal.Why)
			}
		}
		found.Values[name] = value
		parts = append(parts, fmt.Sprintf("%s %.4g", name, value))
	}
	found.Why = r.Title
	if len(parts) > 0 {
		found.Why += ": " + strings.Join(parts, ", ")
	}
	if len(whys) > 0 {
		found.Why += " (" + strings.Join(whys, "; ") + ")"
	}
	return found
}

// proposals are the rule's responses, each with how far it may act about e.
func (r *compiled) proposals(e *detectors.Event) []Response {
	then := slices.Clone(r.Then)
	for i := range then {
		then[i].Mode = r.modeFor(then[i], e)
	}
	return then
}

// modeFor draws the canary's subjects by hash, the same ones on every node and
// after every restart. Each response has a subject of its own.
func (r *compiled) modeFor(p Response, e *detectors.Event) Mode {
	if r.Mode != Enforce || r.Canary == 0 {
		return r.Mode
	}
	sum := sha256.Sum256([]byte(string(r.ID) + "\x00" + subject(p, e)))
	if float64(binary.BigEndian.Uint32(sum[:4])) < r.Canary/100*(1<<32) {
		return Enforce
	}
	return Shadow
}

// subject is what a response is about: the scope of a decision, the key of an
// incident or a notice, and else who it is that attempts this.
func subject(p Response, e *detectors.Event) string {
	switch {
	case p.Decide != nil:
		return fieldText(p.Decide.Scope, e)
	case p.Incident != nil:
		return fieldText(p.Incident.Key, e)
	case p.Notify != nil:
		return fieldText(p.Notify.Key, e)
	}
	for _, field := range []string{"name", "account", "session", "source.network"} {
		if text := fieldText(field, e); text != "" {
			return text
		}
	}
	return ""
}
