package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kidoban/kidoban/chatcore"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// disk is a small file system below a node's data.
type disk struct {
	t    testing.TB
	dir  string
	node *node

	addresses int // that decisions were asked for
}

// rooted returns where mounting is possible, and else ends the test.
func rooted(t testing.TB) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("mounting needs root")
	}
	t.Skip("mounting needs root")
}

func newDisk(t testing.TB, n *node) *disk {
	t.Helper()
	rooted(t)
	d := &disk{t: t, dir: filepath.Join(n.dir, "data"), node: n}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *disk) run(name string, args ...string) {
	d.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// memoryDisk is a disk of some megabytes in memory.
func memoryDisk(t testing.TB, n *node, megabytes int) *disk {
	t.Helper()
	d := newDisk(t, n)
	d.run("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm,mode=0700", megabytes), "tmpfs", d.dir)
	t.Cleanup(func() {
		n.kill()
		d.run("umount", d.dir)
	})
	return d
}

// free is how many bytes are left.
func (d *disk) free() int64 {
	d.t.Helper()
	var left syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &left); err != nil {
		d.t.Fatal(err)
	}
	return int64(left.Bavail) * left.Bsize
}

// fill takes what is left of the disk but for some bytes; more if called again.
func (d *disk) fill(leave int64) {
	d.t.Helper()
	f, err := os.OpenFile(filepath.Join(d.dir, "filler"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int64{1 << 20, 4096} {
		block := make([]byte, size)
		for d.free() >= leave+size {
			if _, err := f.Write(block); err != nil && !errors.Is(err, syscall.ENOSPC) {
				d.t.Fatal(err)
			}
		}
	}
}

// empty makes room again.
func (d *disk) empty() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.dir, "filler")); err != nil {
		d.t.Fatal(err)
	}
}

// tried is what a log-in was answered, with when to come again.
func (d *disk) tried(address, name, password string) (status int, again string) {
	d.t.Helper()
	body, err := json.Marshal(map[string]string{"email": name, "password": password})
	if err != nil {
		d.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(d.t.Context(), http.MethodPost, "http://"+d.node.site+"/login", bytes.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	newVisitor(address).dress(r)
	r.Header.Set("Content-Type", "application/json")
	resp, err := visitorClient.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("Retry-After")
}

// act registers a decision about an address of its own.
func (d *disk) act() (status int) {
	d.t.Helper()
	d.addresses++
	status, body, err := d.node.call(http.MethodPost, "/v1/decisions", map[string]string{
		"scope": "address", "value": fmt.Sprintf("192.0.%d.%d", 2+d.addresses/250, d.addresses%250+1), "ttl": "1h", "reason": "drill"})
	if err != nil || status != http.StatusServiceUnavailable && status != http.StatusCreated && status != http.StatusOK {
		d.t.Errorf("an operator's act got %d %s %v", status, body, err)
	}
	return status
}

// parts is how the parts of the gate are, by name, and what it says of them.
func (d *disk) parts() map[string]string {
	d.t.Helper()
	_, body, err := d.node.call(http.MethodGet, "/v1/health", nil)
	var health struct {
		Parts []struct{ Name, Status, Detail string }
	}
	if err != nil || json.Unmarshal(body, &health) != nil {
		d.t.Fatalf("health: %s %v", body, err)
	}
	parts := make(map[string]string)
	for _, p := range health.Parts {
		parts[p.Name] = strings.TrimSpace(p.Status + " " + p.Detail)
	}
	return parts
}

// well reports whether all parts are.
func (d *disk) well() bool {
	for _, how := range d.parts() {
		if !strings.HasPrefix(how, "ok") {
			return false
		}
	}
	return true
}

// use uses the gate while the disk takes nothing: who is in stays in, wrong
// passwords are answered as ever, log-ins and operators' acts wait, and nothing
// fails otherwise. It returns how many log-ins and acts were put off.
func (d *disk) use(in *visitor, people []chatcore.SeededAccount, wrong int) (logins, acts int) {
	d.t.Helper()
	for i, person := range people {
		if status, err := in.me(d.t.Context(), d.node); err != nil || status != http.StatusOK {
			d.t.Errorf("who is in got %d %v", status, err)
		}
		switch status, again := d.tried("198.51.100.2", person.Email, person.Password); {
		case status == http.StatusServiceUnavailable && again != "":
			logins++
		case status != http.StatusOK:
			d.t.Errorf("a log-in got %d, to come again after %q", status, again)
		}
		if status, _ := d.tried(fmt.Sprintf("203.0.112.%d", i+1), fmt.Sprintf("nobody%d@x.example", i), "wrong"); status != wrong {
			d.t.Errorf("a wrong password got %d, and %d before", status, wrong)
		}
		if d.act() == http.StatusServiceUnavailable {
			acts++
		}
	}
	return logins, acts
}

// TestDiskFull fills the disk below a gate: who is in stays in, new log-ins and
// operators' acts wait, nothing else breaks, and with room it heals by itself.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	backend := newTown(t, 200)
	n := newNode(t, "full", backend, "mode decisions observe")
	d := memoryDisk(t, n, 64)
	n.start()
	in, out := newVisitor("198.51.100.1"), newVisitor("198.51.100.4")
	for i, v := range []*visitor{in, out} {
		if status, err := v.login(ctx, n, backend.people[i*199]); err != nil || status != http.StatusOK {
			t.Fatalf("%d %v", status, err)
		}
	}
	gone := maps.Clone(out.cookies) // as somebody has them who copied them
	wrong, _ := d.tried("203.0.112.200", "nobody@x.example", "wrong")
	for round := range 2 {
		before := strings.Count(n.said(), "\n")
		people := backend.people[1+40*round:]
		d.fill(0)
		// The database is the first that finds no room. What operators do goes on record
		// first, until the last block is full and the record gives up its reserve.
		first, put := d.use(in, people[:20], wrong)
		if first == 0 {
			t.Error("20 log-ins were taken with the disk full")
		}
		eventually(t, 20*time.Second, "the reserve in use", func() bool {
			d.act()
			how := d.parts()["record"]
			return strings.Contains(how, "reserve") || round > 0 && strings.HasPrefix(how, "down") // it was not yet taken again
		})
		// The reserve is full too.
		d.fill(0)
		eventually(t, 20*time.Second, "the record down", func() bool {
			d.act()
			return strings.HasPrefix(d.parts()["record"], "down")
		})
		logins, acts := d.use(in, people[20:30], wrong)
		if logins != 10 || acts != 10 {
			t.Errorf("of 10 log-ins and 10 acts %d and %d were put off with the record down", logins, acts)
		}
		for range 25 { // that costs no try
			if status, _ := d.tried("198.51.100.5", people[32].Email, people[32].Password); status != http.StatusServiceUnavailable {
				t.Errorf("a right password, once more, got %d", status)
				break
			}
		}
		if how := d.parts(); !strings.HasPrefix(how["database"], "ok") || !strings.Contains(how["stream"], "memory only") {
			t.Errorf("health says %v", how)
		}
		logins, acts = logins+first, acts+put
		if round == 0 {
			if status, _, err := out.do(ctx, n, http.MethodPost, "/logout", map[string]string{}); err != nil || status >= 400 {
				t.Errorf("a log-out got %d %v", status, err)
			}
		}
		out.cookies = maps.Clone(gone)
		if status, err := out.me(ctx, n); err != nil || status == http.StatusOK {
			t.Errorf("who logged out got %d %v", status, err)
		}
		requests := 4*30 + 25 + 100
		lines := strings.Count(n.said(), "\n") - before
		if lines > 4*requests {
			t.Errorf("about %d requests made %d lines of log", requests, lines)
		}
		d.empty()
		took := eventually(t, 20*time.Second, "log-ins again", func() bool {
			status, err := newVisitor("198.51.100.3").login(ctx, n, people[31])
			return err == nil && status == http.StatusOK
		})
		t.Logf("round %d: %d log-ins and %d acts of 30 each were put off, with %d lines of log; log-ins again after %v", round, logins, acts, lines, took)
	}
	t.Logf("all parts well after %v", eventually(t, 40*time.Second, "all parts well", d.well))
	eventually(t, 40*time.Second, "the end of the session that was logged out of", func() bool {
		return !(&crashDrill{t: t, node: n}).has(fmt.Sprint(backend.people[199].ID), d.sessionFrom("198.51.100.4"))
	})
	n.stop()
	if said, err := kidoban(n.dir, "record", "verify", filepath.Join(d.dir, "record")); err != nil {
		t.Errorf("record verify: %v\n%s", err, said)
	}
	n.start()
	if status, err := in.me(ctx, n); err != nil || status != http.StatusOK {
		t.Errorf("after a restart who is in got %d %v", status, err)
	}
	d.agree("198.51.100.4")
}

// TestDiskFullBesideDatabase fills the disk of a gate whose database is elsewhere:
// it is the record alone that stops log-ins, a start changes nothing about that, and
// an operator can let them go on without it.
func TestDiskFullBesideDatabase(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	backend := newTown(t, 200)
	database := "database " + storagetest.Postgres(t)
	n := newNode(t, "beside", backend, database, "mode decisions observe")
	d := memoryDisk(t, n, 64)
	n.start()
	in, out := newVisitor("198.51.100.1"), newVisitor("198.51.100.4")
	for i, v := range []*visitor{in, out} {
		if status, err := v.login(ctx, n, backend.people[i]); err != nil || status != http.StatusOK {
			t.Fatalf("%d %v", status, err)
		}
	}
	wrong, _ := d.tried("203.0.112.200", "nobody@x.example", "wrong")
	stopped := func() {
		t.Helper()
		d.fill(0)
		eventually(t, 20*time.Second, "the record down", func() bool {
			d.fill(0)
			d.act()
			return strings.HasPrefix(d.parts()["record"], "down")
		})
		if logins, acts := d.use(in, backend.people[10:20], wrong); logins != 10 || acts != 10 {
			t.Errorf("of 10 log-ins and 10 acts %d and %d were put off with the record down", logins, acts)
		}
	}
	stopped()
	if status, _, err := out.do(ctx, n, http.MethodPost, "/logout", map[string]string{}); err != nil || status >= 400 {
		t.Errorf("a log-out got %d %v", status, err)
	}
	n.kill()
	n.start()
	stopped()
	if status, err := out.me(ctx, n); err != nil || status == http.StatusOK {
		t.Errorf("who logged out got %d %v", status, err)
	}

	n.configure(database, "record_optional", "mode decisions observe")
	if said, err := kidoban(n.dir, "reload", "--force", "--config", n.file, "--adapter", "caddyfile", "--address", "unix/"+filepath.Join(n.dir, "admin.sock")); err != nil {
		t.Fatalf("reload: %v\n%s", err, said)
	}
	if logins, acts := d.use(in, backend.people[20:30], wrong); logins != 0 || acts != 0 {
		t.Errorf("of 10 log-ins and 10 acts %d and %d were put off, and the record is optional", logins, acts)
	}
	if how := d.parts()["record"]; !strings.HasPrefix(how, "down") || !strings.Contains(how, "record_optional") {
		t.Errorf("health says %s", how)
	}
	d.empty()
	t.Logf("all parts well after %v", eventually(t, 40*time.Second, "all parts well", d.well))
	d.agree("198.51.100.4") // who logged out while nothing could go on record
	eventually(t, 40*time.Second, "the second start on record", func() bool {
		started := 0
		if err := record.Read(ctx, filepath.Join(d.dir, "record"), nil, record.Query{Kinds: []string{"gate.started"}}, func(record.Entry) error {
			started++
			return nil
		}); err != nil {
			t.Error(err)
		}
		return started == 2
	})
}

// sessionFrom is the session that the record says began at an address.
func (d *disk) sessionFrom(address string) string {
	d.t.Helper()
	begun := (&crashDrill{t: d.t, node: d.node}).read().begun[address]
	if len(begun) != 1 {
		d.t.Fatalf("sessions from %s: %q", address, begun)
	}
	return begun[0]
}

// agree compares the record with what is so: no act is half done. Sessions from some
// sources are left out.
func (d *disk) agree(but ...string) {
	d.t.Helper()
	drill := &crashDrill{t: d.t, node: d.node}
	acts := drill.read().acts
	if len(acts) == 0 {
		d.t.Error("no act is on record")
	}
	taken := 0
	live := drill.live(0)
	for _, a := range acts {
		if a.abandoned {
			taken++
		}
		if slices.Contains(but, a.body["source"]) {
			continue
		}
		happened := !a.abandoned
		switch a.kind {
		case "session.begin":
			happened = drill.has(a.body["account"], a.body["session"])
		case "decision.register":
			happened = live[a.body["value"]]
		}
		if happened == a.abandoned {
			d.t.Errorf("%s %v: the record says that it was taken back: %v, and it is not so", a.entry, a.body, a.abandoned)
		}
	}
	d.t.Logf("%d acts are on record, %d of them taken back", len(acts), taken)
}

// TestFloodAndDisk floods a gate with wrong passwords on a disk with little room.
// Good log-ins go on.
func TestFloodAndDisk(t *testing.T) {
	t.Parallel()
	backend := newTown(t, 400)
	n := newNode(t, "flood", backend, "mode decisions observe")
	d := memoryDisk(t, n, 96) // a sixteenth is more than is left below: events may take none of it
	n.start()
	ctx, stop := context.WithCancel(t.Context())
	var attempts atomic.Int64
	var workers sync.WaitGroup
	flood := func(w int) {
		for i := 0; ctx.Err() == nil; i++ {
			v := newVisitor(fmt.Sprintf("203.%d.%d.%d", w, i/250%250, i%250+1))
			status, err := v.try(t.Context(), n, fmt.Sprintf("nobody%d.%d@x.example", w, i), "wrong")
			if err != nil || status >= http.StatusInternalServerError {
				t.Errorf("an attempt: %d %v", status, err)
				return
			}
			attempts.Add(1)
		}
	}
	for w := range 4 {
		workers.Go(func() { flood(w) })
	}
	least := d.free()
	login := func(i int) {
		t.Helper()
		v := newVisitor(fmt.Sprintf("198.51.%d.%d", i/250+100, i%250+1))
		if status, err := v.login(t.Context(), n, backend.people[i]); err != nil || status != http.StatusOK {
			t.Errorf("log-in %d: %d %v", i, status, err)
		}
		least = min(least, d.free())
	}
	for i := range 10 {
		login(i)
	}
	// What is left is enough for the log-ins: the database's write-ahead log takes
	// 4 MiB before it is used anew. The events of the flood alone would take it all.
	wal, err := os.Stat(filepath.Join(d.dir, "kidoban.db-wal"))
	if err != nil {
		t.Fatal(err)
	}
	d.fill(max(4200<<10-wal.Size(), 0) + 900<<10)
	for i := range 80 {
		login(10 + i)
	}
	eventually(t, 2*time.Minute, "10,000 wrong passwords", func() bool { return attempts.Load() >= 10_000 || t.Failed() })
	for i := range 10 {
		login(90 + i)
	}
	stop()
	workers.Wait()
	if least < 64<<10 {
		t.Error("the flood took the last room of the disk")
	}
	t.Logf("%d wrong passwords beside 100 good ones; %d KiB of the disk were left at least", attempts.Load(), least/1024)
}

// TestDiskReadOnly has a disk fail below a gate that runs, so that the kernel makes
// it read-only, and starts a gate on a read-only disk. A kernel gives such a disk
// back only after it was unmounted; a file system that somebody writes to cannot
// become read-only otherwise.
func TestDiskReadOnly(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	backend := newTown(t, 200)
	n := newNode(t, "readonly", backend, "mode decisions observe")
	d := newDisk(t, n)
	image := filepath.Join(n.dir, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	d.run("mkfs.ext4", "-q", image)
	mount := func(options string) {
		t.Helper()
		d.run("mount", "-o", "loop,errors=remount-ro"+options, image, d.dir)
	}
	mounted := true
	mount("")
	t.Cleanup(func() {
		n.kill()
		if mounted {
			d.run("umount", d.dir)
		}
	})
	umount := func() {
		t.Helper()
		d.run("umount", d.dir)
		mounted = false
	}
	if err := os.Chmod(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	n.start()
	in := newVisitor("198.51.100.1")
	if status, err := in.login(ctx, n, backend.people[0]); err != nil || status != http.StatusOK {
		t.Fatalf("%d %v", status, err)
	}
	wrong, _ := d.tried("203.0.112.200", "nobody@x.example", "wrong")

	device, err := exec.Command("findmnt", "-no", "SOURCE", d.dir).Output()
	if err != nil {
		t.Fatalf("findmnt: %v", err)
	}
	if err := os.WriteFile("/sys/fs/ext4/"+filepath.Base(strings.TrimSpace(string(device)))+"/trigger_fs_error", []byte("drill"), 0); err != nil {
		t.Fatalf("having the disk fail: %v", err)
	}
	if err := os.WriteFile(filepath.Join(d.dir, "file"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Fatalf("writing to the disk that failed: %v", err)
	}
	logins, acts := d.use(in, backend.people[1:11], wrong)
	if logins != 10 || acts != 10 {
		t.Errorf("of 10 log-ins and 10 acts %d and %d were put off", logins, acts)
	}
	if how := d.parts(); !strings.HasPrefix(how["record"], "down") || !strings.Contains(how["stream"], "memory only") {
		t.Errorf("health says %v", how)
	}
	n.stop()
	if said := n.said(); !strings.Contains(said, "what the detectors know cannot be written down") || strings.Contains(said, "panic") {
		t.Errorf("at its end the gate said:\n%s", tail(said, 30))
	}
	umount()

	// An operator looks after it, and forgets that it is mounted read-only.
	if out, err := exec.Command("fsck.ext4", "-p", image).CombinedOutput(); err != nil && err.(*exec.ExitError).ExitCode() > 1 {
		t.Fatalf("fsck: %v\n%s", err, out)
	}
	mount(",ro")
	mounted = true
	if err := n.launch(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-n.done:
	case <-time.After(30 * time.Second):
		t.Error("a gate runs on a disk that it cannot write")
	}
	if said := n.said(); !strings.Contains(said, "read-only") {
		t.Errorf("a read-only disk is not told: %s", tail(said, 10))
	}
	n.kill()
	umount()

	mount("")
	mounted = true
	n.start()
	if status, err := in.me(ctx, n); err != nil || status != http.StatusOK {
		t.Errorf("after the disk can be written again, who is in got %d %v", status, err)
	}
	if !d.well() {
		t.Errorf("health says %v", d.parts())
	}
	d.agree()
}
