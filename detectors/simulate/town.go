package simulate

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// town makes people out of their number and a seed, so that a million of them cost
// nothing until they log in.
type town struct {
	Town
	seed      uint64
	start     time.Time
	companies []int32  // first person of each company, in order
	seen      []uint64 // bits of people whom the gate has seen log in
	curve     [7 * 24]float64
}

// program is what a client program shows.
type program struct {
	share  float64
	client detectors.Client
}

// programs are those of people; the first is what attackers imitate.
var programs = []program{
	{0.34, detectors.Client{JA4: "t13d1516h2_8daaf6152771_d8a2da3f94cd", Headers: "5b1f0c2d9a34", Family: "chrome"}},
	{0.16, detectors.Client{JA4: "t13d1516h2_8daaf6152771_d8a2da3f94cd", Headers: "5b1f0c2d9a34", Family: "edge"}},
	{0.06, detectors.Client{JA4: "t13d1516h2_8daaf6152771_d8a2da3f94cd", Headers: "7c20aa18e0f1", Family: "chrome"}},
	{0.07, detectors.Client{JA4: "t13d2014h2_a09f3c656075_7f0f34a4126d", Headers: "19d3b7705c6e", Family: "safari"}},
	{0.04, detectors.Client{JA4: "t13d1717h2_5b57614c22b0_3cbfd9057e0d", Headers: "c4e8810fa2b7", Family: "firefox"}},
	{0.14, detectors.Client{JA4: "t13d2013h2_a09f3c656075_e42f34c56612", Headers: "e21a97bb3d40", Family: "ios-app"}},
	{0.12, detectors.Client{JA4: "t13d1312h2_f57a46bbacb6_ab7e3b40a677", Headers: "90f3c6d1e8a5", Family: "android-app"}},
	{0.07, detectors.Client{JA4: "t13d1516h2_8daaf6152771_02713d6af862", Headers: "3fa6d20b81c9", Family: "electron"}},
}

// tools are what attackers use who do not care.
var tools = []detectors.Client{
	{JA4: "t13i1810h1_85036bcba153_b26ce05bbdd6", Headers: "0d4c1b77e6aa", Family: "python-requests"},
	{JA4: "t13i1312h1_f57a46bbacb6_7121afd63204", Headers: "a77b03c95d12", Family: "okhttp"},
	{JA4: "t13d1910h2_9dc949149365_e7c285222651", Headers: "62e1f5b08c3d", Family: "go-http-client"},
	{JA4: "t12d290400_11b08e233c4b_017f05e53f6d", Headers: "f08a6d3e2b91", Family: "chrome"},
	{JA4: "t13d3112h1_e8f1e7e78f70_b26ce05bbdd6", Headers: "4b9c0e71d5f6", Family: "curl"},
}

// Operators of documentation (RFC 5398), by what they are.
var (
	homeOperators    = []uint32{65536, 65537, 65538, 65539, 65540, 65541, 65542, 65543}
	foreignCountries = []string{"US", "VN", "ID", "BR", "DE", "IN", "TH", "TW", "KR", "CN", "FR", "GB", "SG", "PH", "MX", "CA", "AU", "PL", "ES", "TR"}
	hostingOperators = []uint32{64500, 64501, 64502, 64503}
)

const (
	carrierOperator  = 64510
	foreignOperator  = 4_200_000_000 // the first of a range for private use (RFC 6996)
	foreignOperators = 400
)

func spread(a, b uint64) uint64 {
	h := a*0x9e3779b97f4a7c15 ^ b
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

func unit(h uint64) float64 { return float64(h>>11) / (1 << 53) }

func newTown(t Town, seed uint64, start time.Time) *town {
	w := &town{Town: t, seed: seed, start: start, seen: make([]uint64, (t.People+63)/64)}
	r := rand.New(rand.NewPCG(seed, 1))
	sizes, sum := make([]float64, t.Companies), 0.0
	for i := range sizes {
		sizes[i] = math.Exp(1.3 * r.NormFloat64())
		sum += sizes[i]
	}
	first := 0.0
	for _, size := range sizes {
		w.companies = append(w.companies, int32(first))
		first += size / sum * float64(t.People)
	}
	for i := range t.People {
		if unit(spread(seed^7, uint64(i))) >= t.New {
			w.seen[i/64] |= 1 << (i % 64)
		}
	}
	total := 0.0
	for hour := range w.curve {
		of := [24]float64{0.1, 0.05, 0.05, 0.05, 0.1, 0.2, 0.5, 1.2, 2.6, 3.8, 2.4, 1.8, 1.5, 2.2, 1.8, 1.6, 1.5, 1.3, 1, 0.8, 0.7, 0.6, 0.4, 0.2}[hour%24]
		if day := hour / 24; day >= 5 { // from Monday on
			of *= 0.2
		}
		w.curve[hour] = of
		total += of
	}
	for hour := range w.curve {
		w.curve[hour] *= 5 * 24 / total // a workday has PerDay log-ins of a person
	}
	return w
}

// ahead is by how many minutes the clocks of Asia/Tokyo, which are never put forward or
// back, are ahead of UTC.
const ahead = 9 * 60

// holidays are days of Japan with hardly anybody at work, month and day.
var holidays = []int{101, 102, 103, 211, 223, 321, 429, 503, 504, 505, 720, 811, 921, 923, 1012, 1103, 1123, 1230, 1231}

// shape is how much is going on, on average 5/7 of 1.
func (w *town) shape(at time.Time) float64 {
	if w.Flat {
		return 1
	}
	local := at.UTC().Add(ahead * time.Minute)
	hour := (int(local.Weekday())+6)%7*24 + local.Hour()
	next := w.curve[(hour+1)%len(w.curve)]
	f := float64(local.Minute()) / 60
	x := w.curve[hour]*(1-f) + next*f
	if slices.Contains(holidays, int(local.Month())*100+local.Day()) {
		x *= 0.15
	}
	return x
}

func (w *town) known(i int) bool { return w.seen[i/64]>>(i%64)&1 == 1 }
func (w *town) know(i int)       { w.seen[i/64] |= 1 << (i % 64) }

func (w *town) hash(i int, what uint64) uint64 { return spread(w.seed+what, uint64(i)) }

func (w *town) company(i int) int {
	n, found := slices.BinarySearch(w.companies, int32(i))
	if found {
		return n
	}
	return n - 1
}

func digestOf(a uint64) (d detectors.Digest) {
	for i, h := range [2]uint64{spread(a, 11), spread(a, 12)} {
		for j := range 8 {
			d[8*i+j] = byte(h >> (8 * j))
		}
	}
	return d
}

func (w *town) name(i int) detectors.Digest { return digestOf(w.hash(i, 20)) }
func (w *town) account(i int) detectors.Account {
	return detectors.Account("u" + strconv.Itoa(i))
}
func (w *town) organization(i int) detectors.Organization {
	return detectors.Organization("o" + strconv.Itoa(w.company(i)))
}
func (w *town) device(i int) string { return "d" + strconv.Itoa(i) }

// since is when the gate first saw the account.
func (w *town) since(i int) time.Time {
	return w.start.AddDate(0, 0, -2-int(w.hash(i, 21)%700))
}

func (w *town) program(i int) uint8 {
	x := unit(w.hash(i, 22))
	for k, p := range programs {
		if x -= p.share; x < 0 {
			return uint8(k)
		}
	}
	return 0
}

const letters = "abcdefghijkmnpqrstuvwxyz23456789"

func word(h uint64, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[h%32]
		h = spread(h, uint64(i))
	}
	return string(b)
}

func (w *town) password(i int) string { return word(w.hash(i, 23), 10) }
func (w *town) other(i int) string    { return word(w.hash(i, 24), 9) }

// place is where a client is.
type place struct {
	address netip.Addr
	asn     uint32
	country string
}

func v4(first byte, h uint64) netip.Addr {
	return netip.AddrFrom4([4]byte{first, byte(h), byte(h >> 8), byte(h >> 16)})
}

func v6(high uint32, middle uint32, low uint64) netip.Addr {
	b := [16]byte{byte(high >> 24), byte(high >> 16), byte(high >> 8), byte(high), byte(middle >> 24), byte(middle >> 16), byte(middle >> 8), byte(middle)}
	for i := range 8 {
		b[8+i] = byte(low >> (8 * i))
	}
	return netip.AddrFrom16(b)
}

// homeAt is some home line of the country: three in four have IPv4, of 16 million.
func homeAt(h uint64) place {
	asn := homeOperators[min(int(-math.Log(1-unit(spread(h, 31)))*2), len(homeOperators)-1)]
	if h%4 == 0 {
		return place{v6(0x24000000+asn%16, uint32(spread(h, 32)), spread(h, 33)), asn, "JP"}
	}
	return place{v4(11+byte(asn%4), spread(h, 34)), asn, "JP"}
}

func foreignAt(h uint64) place {
	k := min(int(-math.Log(1-unit(spread(h, 37)))*foreignOperators/5), foreignOperators-1) // some are large
	return place{v4(41+byte(k%32), spread(h, 35)), foreignOperator + uint32(k), foreignCountries[k%len(foreignCountries)]}
}

func hostingAt(h uint64) place {
	k := int(h % uint64(len(hostingOperators)))
	return place{v4(101+byte(k), spread(h, 36)), hostingOperators[k], []string{"US", "NL", "SG", "JP"}[k]}
}

func (w *town) home(i int) place { return homeAt(w.hash(i, 25)) }

func (w *town) office(i int) place {
	h := spread(w.seed+26, uint64(w.company(i)))
	return place{v4(61, h), 65546 + uint32(h>>32%6), "JP"}
}

func (w *town) carrier(h uint64) place {
	return place{v4(71, h%uint64(w.Addresses)), carrierOperator, "JP"}
}

func (w *town) traveller(i int) bool { return unit(w.hash(i, 27)) < w.Abroad }

// whereabouts draws where person i is.
func (w *town) whereabouts(r *rand.Rand, i int, at time.Time) (p place, abroad, carrier bool) {
	if w.traveller(i) {
		week := uint64(at.Unix() / (7 * 24 * 3600))
		return foreignAt(spread(w.hash(i, 28), week*8+r.Uint64N(2))), true, false
	}
	if r.Float64() < w.Carrier {
		return w.carrier(r.Uint64()), false, true
	}
	switch x := r.Float64(); {
	case x < w.Place*0.6:
		return w.office(i), false, false
	case x < w.Place:
		return w.home(i), false, false
	}
	return homeAt(r.Uint64()), false, false
}

// history is what the gate learned of everybody before: each from home, from the
// office and through the carrier.
func (w *town) history(learn func(*detectors.Event)) {
	r := rand.New(rand.NewPCG(w.seed, 2))
	for i := range w.People {
		if !w.known(i) {
			continue
		}
		places := []place{w.office(i), w.home(i)}
		if w.Carrier > 0 {
			places = append(places, w.carrier(r.Uint64()), w.carrier(r.Uint64()))
		}
		for k, p := range places {
			e := detectors.Event{
				Time: w.start.AddDate(0, 0, -1-k).Add(-time.Duration(r.IntN(3600)) * time.Second), Kind: detectors.Session, Outcome: detectors.Success,
				Account: w.account(i), AccountSince: w.since(i), Organization: w.organization(i), Name: detectors.Name{Digest: w.name(i)},
				Client: programs[w.program(i)].client, Device: detectors.Device{ID: w.device(i), State: detectors.Trusted}, Offset: ahead,
			}
			e.Source = p.source()
			e.Fingerprint = e.Client.Fingerprint()
			learn(&e)
		}
	}
}

func (p place) source() detectors.Source {
	return detectors.Source{Address: p.address, Network: detectors.CountingNetwork(p.address), ASN: p.asn, Country: p.country}
}

// facts are digests as a gate makes them of a password, with a key that is none.
func facts(password string) (f detectors.PasswordFacts) {
	whole := textHash(password, -1)
	f.Digest = digestOf(whole)
	n := min(len(password), 32)
	f.Near = make([]uint32, 0, n+1)
	f.Near = append(f.Near, uint32(whole))
	for i := range n {
		f.Near = append(f.Near, uint32(textHash(password, i)))
	}
	return f
}

// textHash is of a text without one of its bytes.
func textHash(s string, without int) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		if i != without {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
	}
	return spread(h, 41)
}
