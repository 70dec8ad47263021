package gateway

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/gateway/mail"
	"github.com/kidoban/kidoban/gateway/outbox"
	"github.com/kidoban/kidoban/gateway/watch"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// history is the last good versions of the files of a data directory: of rules, and
// of policy and presets.
type history struct{ rules, policies *watch.Keeper }

func openHistory(dataDir string) history {
	return history{
		rules:    &watch.Keeper{Dir: filepath.Join(dataDir, "good", "rules")},
		policies: &watch.Keeper{Dir: filepath.Join(dataDir, "good", "policies")},
	}
}

// reader is a history that is only read: a configuration that is being checked, or
// refused, must leave no trace.
type reader struct{ *watch.Keeper }

func (reader) Good(string, []byte) error { return nil }
func (reader) Forget(string) error       { return nil }

// ownPolicies is the folder of the installation's own policy and presets, empty if
// there is none.
func (a *App) ownPolicies() fs.FS {
	if a.Policies == "" {
		return nothing{}
	}
	return os.DirFS(a.Policies)
}

// nothing is an empty folder.
type nothing struct{}

func (nothing) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// loadRules reads the rule files. Of one that does not check the last good version
// stays in force; the faults say so. What is in old is not tested again; nil: no set
// was in force.
func (a *App) loadRules(h rules.History, old *rules.Set) (*rules.Set, []error) {
	if a.Rules == "" {
		return rules.Reload(old, rules.Shipped, nil)
	}
	return rules.Reload(old, layered{os.DirFS(a.Rules), rules.Shipped}, h)
}

// loadPolicies reads policy and presets for the handlers, and has them guard by
// these from now on. Of each that cannot be read what is in force stays.
func (a *App) loadPolicies(core *guard.Core, h rules.History) (faults []error) {
	policy, left, err := policies.LoadPolicyWithHistory(a.ownPolicies(), h)
	if fault := errors.Join(left, err); fault != nil {
		faults = append(faults, fault)
	}
	if err == nil {
		a.policy = policy
	}
	for _, handler := range a.handlers {
		b, left, err := policies.LoadBackendWithHistory(handler.Backend, a.ownPolicies(), h)
		if fault := errors.Join(left, err); fault != nil {
			faults = append(faults, fault)
		}
		if err != nil {
			b = handler.backend.Load()
		}
		handler.use(core, b, a.policy)
	}
	return faults
}

// decoys tells the digests of the policy's decoys, under every key.
func decoys(core *guard.Core, names []string) func(detectors.Digest) bool {
	digests := make(map[detectors.Digest]bool)
	for _, name := range names {
		for _, digest := range core.Digests("name", auth.CanonicalName(name)) {
			digests[digest] = true
		}
	}
	return func(d detectors.Digest) bool { return digests[d] }
}

// files is what the latest configuration reads from files, and watches.
type files struct {
	history history

	mu   sync.Mutex         // held while files are read; guards apps and stop
	apps []*App             // that hold the runtime, the latest last
	stop context.CancelFunc // of the watcher

	faults atomic.Pointer[[]error] // what was left out; not behind mu, since who asks for health does not wait for files
}

// configure applies what may change with a reload: the logger, rules, policy,
// presets and geo files. It is called before the app's first request.
func (rt *runtime) configure(a *App) {
	rt.files.mu.Lock()
	defer rt.files.mu.Unlock()
	rt.files.apps = append(rt.files.apps, a)
	rt.applyLocked(a)
}

// release takes a configuration out. Where it was the latest, and one before is
// still in use, that one applies again: a reload that failed changes nothing.
func (rt *runtime) release(a *App) {
	rt.files.mu.Lock()
	defer rt.files.mu.Unlock()
	apps := rt.files.apps
	for i, other := range apps {
		if other != a {
			continue
		}
		rt.files.apps = append(apps[:i:i], apps[i+1:]...)
		if last := len(apps) - 1; i == last && last > 0 {
			rt.applyLocked(apps[last-1])
		}
		return
	}
}

func (rt *runtime) applyLocked(a *App) {
	rt.unwatchLocked()
	rt.log.set(a.logger)
	rt.core.RecordOptional.Store(a.RecordOptional)
	rt.core.Mailing.Store(a.mailer != nil)
	rt.core.Subscribe(a.subscriptions)
	rt.hooks.Use(a.senders)
	rt.hooks.UseChannels(rt.channels(a))
	if err := rt.breached.Use(a.Breached, a.BreachedAPI); err != nil { // Provision took the address
		a.logger.Error("nobody is asked for breached passwords", zap.Error(err))
	}
	var paths []string
	if a.Rules != "" {
		paths = append(paths, a.Rules, filepath.Join(a.Rules, "lists"))
	}
	if a.Policies != "" {
		paths = append(paths, a.Policies, filepath.Join(a.Policies, "backends"))
	}
	var watcher *watch.Watcher
	if len(paths) > 0 { // before reading: what changes meanwhile is told
		watcher = watch.New(paths, func() { rt.reread(a) }, watch.Options{Error: func(err error) {
			a.logger.Warn("watching rules and policies: changes may be noticed late or not at all", zap.Error(err))
		}})
	}
	rt.readLocked(a)
	if watcher == nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	rt.files.stop = stop
	rt.watchers.Go(func() { _ = watcher.Run(ctx) }) // it ends with ctx
}

// channels are what sends notices other than webhooks do.
func (rt *runtime) channels(a *App) map[string]outbox.Channel {
	if a.mailer == nil {
		return nil
	}
	letters, err := mail.NewLimited(a.mailer, rt.core.Outbox, rt.db.SQL(), rt.db.Dialect())
	if err != nil { // the dialect is one of ours
		a.logger.Error("mail cannot be sent", zap.Error(err))
		return nil
	}
	return map[string]outbox.Channel{mail.Channel: {Sender: letters, Lanes: mailLanes}}
}

// unwatchLocked stops the watcher. It may be waiting for the lock to read files, so
// its end is not waited for; reread looks whether its configuration still counts.
func (rt *runtime) unwatchLocked() {
	if rt.files.stop != nil {
		rt.files.stop()
		rt.files.stop = nil
	}
}

// reread reads the files of a again, if that is still the latest configuration.
func (rt *runtime) reread(a *App) {
	rt.files.mu.Lock()
	defer rt.files.mu.Unlock()
	if apps := rt.files.apps; len(apps) > 0 && apps[len(apps)-1] == a && rt.files.stop != nil {
		a.logger.Info("rule or policy files changed")
		rt.readLocked(a)
	}
}

// readLocked has what files say in force first, and then keeps the good versions: a
// disk takes its time.
func (rt *runtime) readLocked(a *App) {
	goodRules, goodPolicies := rt.files.history.rules.Later(), rt.files.history.policies.Later()
	old := rt.core.Rules.Load()
	known := old
	if known == nil {
		known = a.checked
	}
	set, faults := a.loadRules(goodRules, known)
	a.checked = nil
	set.Limit(a.RulesMemory.limits())
	set.Adopt(old)
	rt.core.Rules.Store(set)
	faults = append(faults, a.loadPolicies(rt.core, goodPolicies)...)
	rt.core.UseClocks(a.policy.Clocks())
	rt.core.Detectors.SetDecoys(decoys(rt.core, a.policy.Decoys))
	rt.files.leftOut(faults, a.cautions)
	for _, keeping := range []error{goodRules.Keep(), goodPolicies.Keep()} {
		if keeping != nil {
			faults = append(faults, fmt.Errorf("what is in force is not all remembered for the day it goes bad: %w", keeping))
		}
	}
	rt.files.leftOut(faults, a.cautions)
	for _, fault := range faults {
		a.logger.Error("left out", zap.Error(fault))
	}
	if err := rt.places.Use(a.GeoIP); err != nil {
		a.logger.Error("left out", zap.Error(err))
	}
}

// leftOut tells from now on what was left out, and cautions.
func (f *files) leftOut(faults, cautions []error) {
	all := slices.Concat(faults, cautions)
	f.faults.Store(&all)
}

// faulty is what was left out of the configuration, and why.
func (rt *runtime) faulty() []error {
	var faults []error
	if left := rt.files.faults.Load(); left != nil {
		faults = slices.Clone(*left)
	}
	if set := rt.core.Rules.Load(); set != nil {
		faults = append(faults, set.Errors()...)
	}
	for _, f := range rt.places.Status() {
		if f.Fault != nil {
			faults = append(faults, f.Fault)
		}
	}
	return faults
}

// layered is a file system in which files of the first hide those of the second.
type layered [2]fs.FS

func (l layered) Open(name string) (fs.File, error) {
	f, err := l[0].Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return l[1].Open(name)
	}
	return f, err
}

// ReadDir lists the files of both. Folders inside either need not be there.
func (l layered) ReadDir(name string) ([]fs.DirEntry, error) {
	within := func(err error) bool { return name != "." && errors.Is(err, fs.ErrNotExist) }
	own, err := fs.ReadDir(l[0], name)
	if err != nil && !within(err) {
		return nil, fmt.Errorf("the folder of rules: %w", err)
	}
	shipped, err2 := fs.ReadDir(l[1], name)
	if err2 != nil && (err != nil || !within(err2)) {
		return nil, err2
	}
	seen := make(map[string]bool, len(own))
	for _, e := range own {
		seen[e.Name()] = true
	}
	for _, e := range shipped {
		if !seen[e.Name()] {
			own = append(own, e)
		}
	}
	return own, nil
}
