package simulate

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// popular are passwords that sprays begin with.
var popular = []string{"123456", "password", "123456789", "12345678", "111111", "qwerty", "abc123", "password1", "1234567", "1q2w3e4r",
	"sakura", "12345", "123123", "000000", "iloveyou", "1234567890", "Passw0rd", "qwerty123", "monkey", "dragon"}

// plan makes the attempts of a raid, in the order of time.
func (a Raid) plan(w *town, crowds []*crowd, from time.Time, seed uint64) (tries []try) {
	r := rand.New(rand.NewPCG(seed, 3))
	begin, length := from.Add(time.Duration(a.From)), time.Duration(a.Length)
	sources := a.Sources
	if a.PerDay > 0 {
		days := max(1, length.Hours()/24)
		sources = max(sources, int(float64(a.Attempts)/days/float64(a.PerDay))+1)
	}
	where := make([]place, sources)
	inside := r.Uint64()
	for i := range where {
		where[i] = a.where(r, w, crowds, inside)
	}
	with := func(source int) detectors.Client {
		switch a.Client {
		case "tool":
			return tools[0]
		case "tools":
			return tools[source%len(tools)]
		case "browsers":
			return programs[w.program(int(spread(inside, uint64(source))%uint64(w.People)))].client
		}
		return programs[0].client
	}
	type slot struct {
		at     time.Duration
		source int
	}
	var slots []slot
	if every := time.Duration(a.Every); every > 0 {
		for s := range where {
			for at := time.Duration(r.Float64() * float64(every)); at < length && len(slots) < AttemptsMax; at += every {
				slots = append(slots, slot{at + time.Duration((r.Float64()-0.5)*0.2*float64(every)), s})
			}
		}
	} else {
		order := r.Perm(sources)
		for k := range a.Attempts {
			if k%sources == 0 {
				r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			}
			source := order[k%sources]
			if a.PerDay == 0 && sources > 1 {
				source = r.IntN(sources)
			}
			slots = append(slots, slot{time.Duration(r.Float64() * float64(length)), source})
		}
	}
	slices.SortFunc(slots, func(x, y slot) int { return int(x.at - y.at) })
	words := a.words(w, r, len(slots))
	for k, s := range slots {
		t := try{at: begin.Add(max(0, s.at)), kind: attacking, where: where[s.source], client: with(s.source), who: -1, name: digestOf(spread(seed, uint64(k)|1<<40))}
		if r.Float64() >= a.Unknown {
			t.who = a.victim(w, r, k, len(slots), inside)
			t.name = w.name(t.who)
		}
		t.password = words(k, t.who)
		if t.who >= 0 && r.Float64() < a.Hit/max(1-a.Unknown, 0.01) && a.Kind != "crack" && a.Kind != "names" {
			t.right = true
			if a.Kind == "list" || a.Kind == "tenants" {
				t.password = w.password(t.who)
			}
		}
		tries = append(tries, t)
		if a.Own > 0 && k%a.Own == a.Own-1 {
			mine := k / a.Own % 10
			tries = append(tries, try{at: t.at.Add(time.Second / 10), kind: own, where: where[s.source], client: t.client, who: -1 - mine,
				name: digestOf(spread(seed, uint64(mine)|1<<41)), password: "of the attacker " + strconv.Itoa(mine), right: true})
		}
	}
	slices.SortStableFunc(tries, func(x, y try) int { return x.at.Compare(y.at) })
	return tries
}

func (a Raid) where(r *rand.Rand, w *town, crowds []*crowd, inside uint64) place {
	switch a.Network {
	case "homes":
		return homeAt(r.Uint64())
	case "world":
		return foreignAt(r.Uint64())
	case "office":
		if len(crowds) > 0 {
			return crowds[0].places[0]
		}
		return w.office(0)
	case "v6/64":
		return place{v6(0x2a0a0000|uint32(inside%4096), uint32(inside>>20), r.Uint64()), hostingOperators[0], "US"}
	case "v6/48":
		return place{v6(0x2a0a0000|uint32(inside%4096), uint32(inside>>20)&^0xffff|uint32(r.Uint64N(1<<16)), r.Uint64()), hostingOperators[0], "US"}
	case "v6/32":
		return place{v6(0x2a0a0000|uint32(inside%4096), r.Uint32(), r.Uint64()), hostingOperators[0], "US"}
	}
	return hostingAt(r.Uint64())
}

// victim is whose account attempt k is at.
func (a Raid) victim(w *town, r *rand.Rand, k, n int, inside uint64) int {
	switch a.Kind {
	case "crack":
		return int(spread(inside, uint64(k%max(1, a.Victims))) % uint64(w.People))
	case "tenants":
		company := int(spread(inside, uint64(k/3)) % uint64(len(w.companies)))
		first, next := int(w.companies[company]), w.People
		if company+1 < len(w.companies) {
			next = int(w.companies[company+1])
		}
		return min(first+r.IntN(max(1, next-first)), w.People-1)
	case "spray":
		// Everybody once, then everybody again.
		users := n/max(1, a.Passwords) + 1
		return int(spread(inside, uint64(k%users)) % uint64(w.People))
	}
	return r.IntN(w.People)
}

// words says which password attempt k tries.
func (a Raid) words(w *town, r *rand.Rand, n int) func(k, who int) string {
	used := map[int]int{} // words of a company's
	fresh := 0
	current := ""
	uses := 0
	return func(k, who int) string {
		switch {
		case a.Words:
			company := 0
			if who >= 0 {
				company = w.company(who)
			}
			v := used[company] / max(1, a.Uses)
			used[company]++
			return "Company" + strconv.Itoa(company) + []string{"2026!", "2026", "123", "@2026", "#1", "2025!"}[v%6] + strings6(v/6)
		case a.Kind == "spray" && a.Uses > 0:
			if uses%a.Uses == 0 {
				fresh++
				current = "Season" + strconv.Itoa(fresh) + "!"
			}
			uses++
			return current
		case a.Kind == "spray":
			users := n/max(1, a.Passwords) + 1
			return popular[k/users%len(popular)]
		case a.Kind == "crack":
			return "guess" + strconv.Itoa(k)
		}
		return word(r.Uint64(), 9)
	}
}

func strings6(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
