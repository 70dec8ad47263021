// Package world makes up companies: their people, offices, rooms and talk.
//
// Equal options make equal worlds. Names are common ones put together by
// chance; mail addresses are under .example (RFC 2606) and offices have
// addresses from 198.18.0.0/15 (RFC 2544), so nothing made up here can reach
// anybody. The package stores nothing and hashes nothing.
package world

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // the same worlds on every machine
)

// Options say which world.
type Options struct {
	Organizations int
	Accounts      int
	Seed          uint64
	Now           time.Time // the moment the talk comes before
}

// The bounds of a world. An organization is given sixteen addresses, and has
// at least PeopleMin people so that there is somebody to talk to.
const (
	OrganizationsMax = 2_000
	AccountsMax      = 200_000
	PeopleMin        = 3
	roomPeopleMax    = 500
)

// Organization is one company.
type Organization struct {
	Name     string
	Domain   string
	Office   netip.Prefix // what its people's requests come from
	Language string
	TimeZone string
	People   []Person
	Rooms    []Room
}

// Person is one account of a company.
type Person struct {
	Name, Handle, Email, Password string
	Department, Title             string
	Language, TimeZone            string
}

// Room is a group room. Members and authors are positions in People.
type Room struct {
	Name, Description, Icon string
	Members                 []int
	Messages                []Message
}

// Message is something said in a Room.
type Message struct {
	Author int
	Body   string
	At     time.Time
}

// New makes the world of o.
func New(o Options) ([]Organization, error) {
	switch {
	case o.Organizations < 1 || o.Organizations > OrganizationsMax:
		return nil, fmt.Errorf("organizations: 1 to %d", OrganizationsMax)
	case o.Accounts < PeopleMin*o.Organizations:
		return nil, fmt.Errorf("accounts: at least %d for each organization", PeopleMin)
	case o.Accounts > AccountsMax:
		return nil, fmt.Errorf("accounts: at most %d", AccountsMax)
	case o.Now.IsZero():
		return nil, errors.New("a world needs a present")
	}
	m := maker{Rand: rand.New(rand.NewPCG(o.Seed, 0x6b69646f62616e)), now: o.Now, domains: map[string]bool{}}
	sizes := m.sizes(o.Organizations, o.Accounts)
	orgs := make([]Organization, o.Organizations)
	for i := range orgs {
		orgs[i] = m.organization(i, sizes[i])
	}
	return orgs, nil
}

// maker draws one world.
type maker struct {
	*rand.Rand
	now     time.Time
	domains map[string]bool // taken
}

func pick[T any](m *maker, from []T) T { return from[m.IntN(len(from))] }

// sizes shares accounts out unevenly: most companies are small and a few are
// several times as large.
func (m *maker) sizes(organizations, accounts int) []int {
	weights := make([]float64, organizations)
	var sum float64
	for i := range weights {
		weights[i] = 0.3 + m.ExpFloat64()
		sum += weights[i]
	}
	sizes := make([]int, organizations)
	left := accounts - PeopleMin*organizations
	shared := 0
	for i, w := range weights {
		n := int(float64(left) * w / sum)
		sizes[i] = PeopleMin + n
		shared += n
	}
	sizes[0] += left - shared
	return sizes
}

func (m *maker) organization(i, size int) Organization {
	base := netip.MustParseAddr("198.18.0.0").As4()
	n := uint32(i) * 16
	base[1] += byte(n >> 16)
	base[2], base[3] = byte(n>>8), byte(n)
	o := Organization{Office: netip.PrefixFrom(netip.AddrFrom4(base), 28)}
	var domain string
	if m.Float64() < 0.7 || i == 0 {
		c, t := pick(m, companies), pick(m, trades)
		o.Language, o.TimeZone = "ja", "Asia/Tokyo"
		domain = c.latin + "-" + t.latin
		o.Name = c.written + t.written
		if m.IntN(3) > 0 {
			o.Name = "株式会社" + o.Name
		} else {
			o.Name += "株式会社"
		}
	} else {
		c, t := pick(m, englishCompanies), pick(m, englishTrades)
		o.Language, o.TimeZone = "en", pick(m, englishZones)
		domain = strings.ReplaceAll(strings.ToLower(c+"-"+t), " ", "")
		o.Name = c + " " + t + " " + pick(m, []string{"Ltd", "Inc.", "Co.", "Group"})
	}
	for k := 2; m.domains[domain]; k++ {
		domain = strings.TrimRight(domain, "0123456789") + strconv.Itoa(k)
	}
	m.domains[domain] = true
	o.Domain = domain + ".example"

	units := min(len(departments), max(1, size/8))
	taken := map[string]bool{}
	for p := range size {
		d := departments[p%units]
		o.People = append(o.People, m.person(o, d, taken))
	}
	m.rooms(&o, units)
	return o
}

func (m *maker) person(o Organization, d department, taken map[string]bool) Person {
	p := Person{Language: o.Language, TimeZone: o.TimeZone}
	japanese := m.Float64() < 0.08
	if o.Language == "ja" {
		japanese = m.Float64() < 0.94
	}
	var given, family string
	if japanese {
		f, g := pick(m, families), pick(m, givens)
		given, family = g.latin, f.latin
		p.Name = f.written + " " + g.written
		if o.Language == "en" {
			p.Name = title(given) + " " + title(family)
		}
	} else {
		f, g := pick(m, englishFamilies), pick(m, englishGivens)
		given, family = strings.ToLower(g), strings.ToLower(f)
		p.Name = g + " " + f
		// Foreigners in a Japanese company read either language.
		if o.Language == "ja" && m.IntN(2) == 0 {
			p.Language = "en"
		}
	}
	p.Department, p.Title = d.ja, pick(m, titlesJa)
	if o.Language == "en" {
		p.Department, p.Title = d.en, pick(m, titlesEn)
	}
	local := given + "." + family
	for k := 2; taken[local]; k++ {
		local = given + "." + family + strconv.Itoa(k)
	}
	taken[local] = true
	p.Handle = local
	p.Email = local + "@" + o.Domain
	p.Password = m.password(given)
	return p
}

func title(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// password makes up one as people do: a word or two, a number, perhaps a sign;
// one in eight is out of a password manager.
func (m *maker) password(given string) string {
	if m.IntN(8) == 0 {
		const letters = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
		b := make([]byte, 16)
		for i := range b {
			b[i] = letters[m.IntN(len(letters))]
		}
		return string(b)
	}
	var s string
	switch m.IntN(4) {
	case 0:
		s = pick(m, passwordWords) + strconv.Itoa(1960+m.IntN(65))
	case 1:
		s = title(pick(m, passwordWords)) + pick(m, passwordWords) + strconv.Itoa(m.IntN(100))
	case 2:
		s = given + fmt.Sprintf("%02d%02d", 1+m.IntN(12), 1+m.IntN(28)) + pick(m, passwordWords)[:3]
	default:
		s = pick(m, passwordWords) + "-" + pick(m, passwordWords) + strconv.Itoa(m.IntN(1000))
	}
	s += pick(m, passwordEnds)
	for len(s) < 8 {
		s += strconv.Itoa(m.IntN(10))
	}
	return s
}

func (m *maker) rooms(o *Organization, units int) {
	say := func(ja, en string) string {
		if o.Language == "ja" {
			return ja
		}
		return en
	}
	everybody := make([]int, min(len(o.People), roomPeopleMax))
	for i := range everybody {
		everybody[i] = i
	}
	o.Rooms = append(o.Rooms, Room{Name: say("全社連絡", "Everybody"), Description: say("全社員へのお知らせ", "News for the whole company"),
		Icon: "group", Members: everybody, Messages: m.talk(o, everybody)})
	for u := range units {
		var members []int
		for p := u; p < len(o.People) && len(members) < roomPeopleMax; p += units {
			members = append(members, p)
		}
		d := departments[u]
		o.Rooms = append(o.Rooms, Room{Name: say(d.ja, d.en), Icon: d.icon, Members: members, Messages: m.talk(o, members)})
	}
	names := slices.Clone(projects)
	m.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for k := range min(len(names), 1+len(o.People)/12) {
		members := m.Perm(len(o.People))[:min(len(o.People), 3+m.IntN(10))]
		o.Rooms = append(o.Rooms, Room{Name: say(names[k].written, names[k].latin), Icon: "project", Members: members, Messages: m.talk(o, members)})
	}
}

// talk is a conversation of the last two weeks, in working hours.
func (m *maker) talk(o *Organization, members []int) []Message {
	zone, err := time.LoadLocation(o.TimeZone)
	if err != nil {
		panic(err) // the zones are constant, and tested
	}
	y, mo, d := m.now.In(zone).Date()
	n := 4 + m.IntN(len(talk)-4)
	var times []time.Time
	for len(times) < n {
		at := time.Date(y, mo, d-1-m.IntN(14), 9, m.IntN(9*60), m.IntN(60), 0, zone)
		if w := at.Weekday(); w != time.Saturday && w != time.Sunday {
			times = append(times, at)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	first := m.IntN(len(talk))
	var said []Message
	for i, at := range times {
		line := talk[(first+i)%len(talk)]
		body := line.latin
		if o.Language == "ja" {
			body = line.written
		}
		said = append(said, Message{Author: pick(m, members), Body: body, At: at.UTC()})
	}
	return said
}
