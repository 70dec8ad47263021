package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gaissmai/bart"

	"github.com/kidoban/kidoban/detectors"
)

const (
	listFolder  = "lists"
	maxList     = 1 << 20 // bytes of a file
	maxLists    = 64
	maxEntries  = 100_000 // of a list with all that it includes
	maxEntry    = 256     // characters
	leastPrefix = 8       // bits of an IPv4 network; a wider one is a mistake
	leastIPv6   = 16      // of an IPv6 network
)

// list is a file lists/NAME.KIND beside the rules: one entry per line, # begins a
// comment, and "include NAME" takes over the entries of another list of the kind.
// It is never changed once it was read.
type list struct {
	file, name string
	kind       *listKind
	digest     string // of the content, and of what it includes
	includes   []include
	parts      []string // names of this list and all that it includes; filled by resolve
	entries    []string // canonical, as written in this file

	networks *bart.Lite          // of kind networks
	members  map[string]struct{} // of the others
}

type include struct {
	name         string
	line, column int
}

// listKind is what the entries of a list are, and which variables may be asked for.
type listKind struct {
	name      string
	variables []string // of conditions; the first is what an exemption asks for
	parse     func(string) (canonical string, err error)
	value     func(*detectors.Event) string // of the first variable
}

var listKinds = []*listKind{
	{"networks", []string{"source.address", "source.network"}, parseNetwork, func(e *detectors.Event) string { return addressText(e.Source.Address) }},
	{"asns", []string{"source.asn"}, parseASN, func(e *detectors.Event) string { return fieldText("source.asn", e) }},
	{"accounts", []string{"account"}, parseWord, func(e *detectors.Event) string { return string(e.Account) }},
	{"domains", []string{"name.domain"}, parseDomain, nameDomain},
	{"fingerprints", []string{"fingerprint", "client.ja4", "client.headers", "client.family"}, parseWord, func(e *detectors.Event) string { return e.Fingerprint }},
}

var (
	listPattern   = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	domainPattern = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$`)
)

func parseNetwork(s string) (string, error) {
	p, err := netip.ParsePrefix(s)
	if a, aerr := netip.ParseAddr(s); aerr == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case err != nil || p.Addr().Is4In6():
		return "", errors.New("want an address or a network such as 203.0.113.0/24")
	case p != p.Masked():
		return "", fmt.Errorf("bits are set beyond its length: want %s", p.Masked())
	case p.Addr().Is4() && p.Bits() < leastPrefix || p.Addr().Is6() && p.Bits() < leastIPv6:
		return "", fmt.Errorf("a network this wide is a mistake: want /%d or longer, of IPv6 /%d", leastPrefix, leastIPv6)
	}
	return p.String(), nil
}

func parseASN(s string) (string, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "AS"), 10, 32)
	if err != nil || n == 0 {
		return "", errors.New("want the number of an autonomous system such as AS64500")
	}
	return strconv.FormatUint(n, 10), nil
}

func parseDomain(s string) (string, error) {
	if !domainPattern.MatchString(s) {
		return "", errors.New("want a domain in lower case such as example.org")
	}
	return s, nil
}

func parseWord(s string) (string, error) { return s, nil }

// nameDomain is what follows the last @ of the typed name, where it may be kept.
func nameDomain(e *detectors.Event) string {
	if at := strings.LastIndexByte(e.Name.Display, '@'); at >= 0 {
		return e.Name.Display[at+1:]
	}
	return ""
}

// has reports whether value is in l: an address or network inside one of its
// networks, a domain that is one of its domains or below one, or the same word. The
// empty value, which is unknown, is in no list.
func (l *list) has(value string) bool {
	switch {
	case value == "":
		return false
	case l.networks != nil:
		if a, err := netip.ParseAddr(value); err == nil {
			return l.networks.Lookup(a)
		}
		p, err := netip.ParsePrefix(value)
		return err == nil && l.networks.LookupPrefix(p)
	case l.kind.name == "domains":
		for {
			if _, ok := l.members[value]; ok {
				return true
			}
			_, parent, ok := strings.Cut(value, ".")
			if !ok {
				return false
			}
			value = parent
		}
	}
	_, ok := l.members[value]
	return ok
}

// parseList reads a list without what it includes.
func parseList(file string, content []byte) (*list, []error) {
	d := &document{file: file}
	l := &list{file: file}
	name := listName(file)
	_, kind, _ := strings.Cut(path.Base(file), ".")
	at := slices.IndexFunc(listKinds, func(k *listKind) bool { return k.name == kind })
	switch {
	case at < 0:
		d.faultAt(1, 1, "list: unknown kind %q: want the file to end in one of .networks, .asns, .accounts, .domains, .fingerprints", kind)
		return nil, d.errors()
	case !listPattern.MatchString(name):
		d.faultAt(1, 1, "list: name %q: want lower-case words joined by hyphens", name)
		return nil, d.errors()
	case len(content) > maxList:
		d.faultAt(1, 1, "list: %d bytes, want at most %d: split it, and include the parts", len(content), maxList)
		return nil, d.errors()
	case !utf8.Valid(content):
		d.faultAt(1, 1, "list: want text in UTF-8")
		return nil, d.errors()
	}
	l.name, l.kind = name, listKinds[at]
	for i, line := range strings.Split(string(content), "\n") {
		text, _, _ := strings.Cut(line, "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		column := strings.Index(line, words[0]) + 1
		switch {
		case len(words) == 2 && words[0] == "include":
			l.includes = append(l.includes, include{words[1], i + 1, column})
		case len(words) > 1:
			d.faultAt(i+1, column, "list: want one entry per line, or include NAME")
		case len(words[0]) > maxEntry:
			d.faultAt(i+1, column, "list: an entry of %d bytes, want at most %d", len(words[0]), maxEntry)
		default:
			entry, err := l.kind.parse(words[0])
			if err != nil {
				d.faultAt(i+1, column, "list: %.60q: %v", words[0], err)
			}
			l.entries = append(l.entries, entry)
		}
	}
	if len(l.entries) > maxEntries {
		d.faultAt(1, 1, "list: %d entries, want at most %d", len(l.entries), maxEntries)
	}
	if len(d.faults) > 0 {
		return nil, d.errors()
	}
	sum := sha256.Sum256(content)
	l.digest = hex.EncodeToString(sum[:])
	return l, nil
}

// lists are those of a folder, by name.
type lists map[string]*list

// resolve joins to each list what it includes, and leaves out those that include what
// cannot be: an unknown list, one of another kind, themselves in the end.
func (all lists) resolve() (lists, map[string][]error) {
	resolved, faults := lists{}, map[string][]error{}
	var join func(l *list, way []string) *list
	join = func(l *list, way []string) *list {
		if done, ok := resolved[l.name]; ok {
			return done
		}
		if len(faults[l.name]) > 0 {
			return nil
		}
		d := &document{file: l.file}
		way = append(way, l.name)
		whole := &list{file: l.file, name: l.name, kind: l.kind, digest: l.digest, parts: []string{l.name}, entries: slices.Clone(l.entries)}
		for _, i := range l.includes {
			other := all[i.name]
			switch {
			case other == nil:
				d.faultAt(i.line, i.column, "list: include %.60s: there is no such list", i.name)
			case slices.Contains(way, i.name):
				d.faultAt(i.line, i.column, "list: include %s: lists include each other in a circle: %s, %s", i.name, strings.Join(way[slices.Index(way, i.name):], ", "), i.name)
			case other.kind != l.kind:
				d.faultAt(i.line, i.column, "list: include %s: it is of %s, want %s", i.name, other.kind.name, l.kind.name)
			default:
				part := join(other, way)
				if part == nil {
					d.faultAt(i.line, i.column, "list: include %s: that list has faults", i.name)
					continue
				}
				whole.digest += part.digest
				whole.parts = append(whole.parts, part.parts...)
				if whole.entries = append(whole.entries, part.entries...); len(whole.entries) > maxEntries {
					d.faultAt(i.line, i.column, "list: include %s: more than %d entries together", i.name, maxEntries)
					whole.entries = nil
				}
			}
		}
		if len(d.faults) > 0 {
			faults[l.name] = d.errors()
			return nil
		}
		sum := sha256.Sum256([]byte(l.kind.name + "\x00" + whole.digest))
		whole.digest = hex.EncodeToString(sum[:])
		whole.index()
		resolved[l.name] = whole
		return whole
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		join(all[name], nil)
	}
	return resolved, faults
}

// index makes entries quick to ask for.
func (l *list) index() {
	if l.kind.name == "networks" {
		l.networks = &bart.Lite{}
		for _, e := range l.entries {
			l.networks.Insert(netip.MustParsePrefix(e))
		}
		return
	}
	l.members = make(map[string]struct{}, len(l.entries))
	for _, e := range l.entries {
		l.members[e] = struct{}{}
	}
}

// isList reports whether a file of a history is a list.
func isList(file string) bool { return strings.HasPrefix(file, listFolder+"/") }

// shelf is the lists of a folder as they are in force.
type shelf struct {
	lists   lists
	files   []string           // there
	content map[string][]byte  // in force, by file
	told    map[string][]error // what is wrong with a file
	stays   map[string]string  // SHA-256 of the last good version, by files of which it is in force instead
	faults  []error            // of the folder
}

// readLists reads every list of fsys but those that are refused, and why. Of one that is
// refused, that does not check or that is gone the last good version is in force, where
// there is one and it still fits the others.
func readLists(fsys fs.FS, h History, refused map[string]error) *shelf {
	files, unread, faults := listFiles(fsys, h)
	s := &shelf{files: files, content: map[string][]byte{}, told: map[string][]error{}, stays: map[string]string{}, faults: faults}
	now := lists{}
	put := func(file string, content []byte) []error {
		l, errs := parseList(file, content)
		if len(errs) == 0 && now[l.name] != nil && now[l.name].file != file {
			errs = []error{fmt.Errorf("%s:1:1: list: %s has this name already", file, now[l.name].file)}
		}
		if len(errs) == 0 {
			now[l.name], s.content[file] = l, content
		}
		return errs
	}
	// back notes what is wrong with a file, puts its last good version in its place and
	// reports whether it did.
	back := func(file string, errs []error) bool {
		s.told[file] = errs
		content, hash, ok := h.LastGood(file)
		if !ok || string(s.content[file]) == string(content) || len(put(file, content)) > 0 {
			return false
		}
		s.stays[file] = hash
		return true
	}
	for _, file := range files {
		if unread {
			back(file, []error{fmt.Errorf("%s: the folder cannot be read", file)})
			continue
		}
		if err := refused[file]; err != nil {
			back(file, []error{err})
			continue
		}
		content, err := readFile(fsys, file)
		if err != nil {
			back(file, []error{fmt.Errorf("%s: reading the list: %w", file, err)})
		} else if errs := put(file, content); len(errs) > 0 {
			back(file, errs)
		}
	}
	for _, file := range s.gone(h) {
		if len(now) < 2*maxLists {
			back(file, []error{fmt.Errorf("%s: the list is gone: put it back, or take it out of the rules", file)})
		}
	}
	resolved, wrong := now.resolve()
	for len(wrong) > 0 { // each turn puts back or drops a version, at most twice as often as there are files
		for _, name := range slices.Sorted(maps.Keys(wrong)) {
			if l := now[name]; s.told[l.file] != nil || !back(l.file, wrong[name]) {
				delete(now, name)
				delete(s.stays, l.file)
			}
		}
		resolved, wrong = now.resolve()
	}
	s.lists = resolved
	return s
}

// gone are the lists that have a last good version and are not there.
func (s *shelf) gone(h History) (files []string) {
	for _, file := range h.Names() {
		if isList(file) && !slices.Contains(s.files, file) {
			files = append(files, file)
		}
	}
	return files
}

// shownRules is how many rules a message names.
const shownRules = 10

// report tells what is wrong with the lists, and for which rules a last good version
// stays in force. Idle are lists that are gone and that no rule asks.
func (s *shelf) report(rules []*compiled) (faults []error, idle []string) {
	users := map[string][]string{} // rules that ask a list, or one that includes it
	for _, r := range rules {
		asked := map[string]bool{}
		for name := range r.Lists {
			for _, part := range s.lists[name].parts {
				asked[part] = true
			}
		}
		for name := range asked {
			users[name] = append(users[name], string(r.ID))
		}
	}
	faults = s.faults
	for _, file := range slices.Sorted(maps.Keys(s.told)) {
		by, hash := users[listName(file)], s.stays[file]
		if !slices.Contains(s.files, file) && (hash == "" || len(by) == 0) {
			idle = append(idle, file)
			continue
		}
		slices.Sort(by)
		for _, err := range s.told[file] {
			switch {
			case hash == "":
			case len(by) == 0:
				err = fmt.Errorf("%w; its version %.12s stays in force", err, hash)
			case len(by) > shownRules:
				err = fmt.Errorf("%w; its version %.12s stays in force for rules %s and %d more", err, hash, strings.Join(by[:shownRules], ", "), len(by)-shownRules)
			default:
				err = fmt.Errorf("%w; its version %.12s stays in force for rules %s", err, hash, strings.Join(by, ", "))
			}
			faults = append(faults, err)
		}
	}
	return faults, idle
}

// good adds to files the lists that are in force as they were read.
func (s *shelf) good(files map[string][]byte) {
	for _, file := range s.files {
		if content, ok := s.content[file]; ok && s.told[file] == nil {
			files[file] = content
		}
	}
}

// spoilers are the files of s without which the lists that r asked of before would be as
// they were.
func (s *shelf) spoilers(r *compiled, before *shelf) (files []string) {
	for name := range r.Lists {
		for _, part := range before.lists[name].parts {
			was := before.lists[part].file
			for _, file := range s.files {
				changed := file != was || string(s.content[file]) != string(before.content[was])
				if listName(file) == part && changed && s.told[file] == nil {
					files = append(files, file)
				}
			}
		}
	}
	return files
}

// listName is the name of the list in a file.
func listName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".")
	return name
}

// listFiles are the lists of fsys; where their folder cannot be read, those of h.
func listFiles(fsys fs.FS, h History) (files []string, unread bool, faults []error) {
	entries, err := fs.ReadDir(fsys, listFolder)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, nil
	case err != nil:
		for _, name := range h.Names() {
			if isList(name) {
				files = append(files, name)
			}
		}
		return files, true, []error{fmt.Errorf("reading the folder %s: %w", listFolder, err)}
	}
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") || e.Name() == "README.md" {
			continue
		}
		files = append(files, path.Join(listFolder, e.Name()))
	}
	slices.Sort(files)
	if len(files) > maxLists {
		faults = append(faults, fmt.Errorf("%s: %d lists, want at most %d: the rest is left out", listFolder, len(files), maxLists))
		files = files[:maxLists]
	}
	return files, false, faults
}

// digest is that of all, with their names.
func (all lists) digest() string {
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintln(sum, name, all[name].digest)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// names lists all for a message.
func (all lists) names() string {
	if len(all) == 0 {
		return "the files in " + listFolder + "/, of which none is"
	}
	return strings.Join(slices.Sorted(maps.Keys(all)), ", ")
}
