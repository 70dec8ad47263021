package simulate

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Languages are those that reports can be written in.
var Languages = []string{"en", "ja"}

// lexicon is what reports say, in one language.
type lexicon struct {
	language string
	metrics  map[Metric]string
	titles   map[string]string // of what is several scenarios
	defenses map[string]string
	why      []reason
	say      map[string]string
}

// reason says why another defense does better in a metric. The scenario is how its id
// begins: "a" is every attack. Empty fields fit all; the first that fits counts.
type reason struct {
	scenario string
	metric   Metric
	by       string
	why      string
}

func wordsOf(language string) lexicon {
	if language == "ja" {
		return japanese
	}
	return english
}

func (w lexicon) title(scenario string, given map[string]Words) string {
	if t, ok := w.titles[scenario]; ok {
		return t
	}
	return w.told(scenario, given)
}

// told is what is given of a scenario, or where it was not played of the form of it that
// evades.
func (w lexicon) told(scenario string, given map[string]Words) string {
	return cmp.Or(w.of(given[scenario]), w.of(given[scenario+"-"+Evading]))
}

// of is a text in w's language, or in the other where it has none.
func (w lexicon) of(t Words) string {
	if w.language == "ja" {
		return cmp.Or(t.JA, t.EN)
	}
	return cmp.Or(t.EN, t.JA)
}

func (w lexicon) defense(name string) string {
	if t, ok := w.defenses[name]; ok {
		return t
	}
	return name
}

func (w lexicon) because(b Beaten) string {
	for _, r := range w.why {
		if strings.HasPrefix(b.Scenario, r.scenario) && (r.metric == "" || r.metric == b.Metric) && (r.by == "" || r.by == b.By) {
			return r.why
		}
	}
	return w.say["unexplained"]
}

// number writes v of a unit for people.
func (w lexicon) number(u Unit, v float64) string {
	if math.IsInf(v, 0) {
		if u == Ratio {
			return "∞"
		}
		return w.say["never"]
	}
	switch u {
	case Share:
		return percent(v)
	case Seconds:
		return w.length(time.Duration(v * float64(time.Second)))
	case Ratio:
		return trim(v, 2) + "×"
	}
	return thousands(v)
}

// percent keeps three digits that tell, and never rounds to all or nothing.
func percent(v float64) string {
	p := v * 100
	switch {
	case p == 0 || p == 100:
		return trim(p, 0) + "%"
	case p < 0.001:
		return "<0.001%"
	case p < 0.1:
		return trim(p, 3) + "%"
	case p > 99.99:
		return ">99.99%"
	case p < 10 || p > 99:
		return trim(p, 2) + "%"
	}
	return trim(p, 1) + "%"
}

func trim(v float64, digits int) string {
	s := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// thousands writes a count, or the half of one that a median may be.
func thousands(v float64) string {
	s := trim(v, 1)
	whole, rest, _ := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if rest != "" {
		return whole + "." + rest
	}
	return whole
}

// length writes a duration in its largest unit.
func (w lexicon) length(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{day, "unit days"}, {time.Hour, "unit hours"}, {time.Minute, "unit minutes"}} {
		if d >= 2*u.unit || d == u.unit {
			return trim(float64(d)/float64(u.unit), 1) + w.say[u.name]
		}
	}
	return trim(d.Seconds(), 1) + w.say["unit seconds"]
}

// limit writes a limit with its side.
func (w lexicon) limit(l Limit) string {
	m := measures[l.Metric]
	if l.Value == 0 && m.better == Lower {
		return w.number(m.unit, 0)
	}
	side := "≤ "
	if m.better == Higher {
		side = "≥ "
	}
	return side + w.number(m.unit, l.Value)
}

// both is a target's limit, and the other that will do.
func (w lexicon) both(t Target) string {
	s := w.limit(t.Limit)
	if t.Or != nil {
		s += w.say["or"] + w.limit(*t.Or)
	}
	return s
}

// form names a variant's form and parameters.
func (w lexicon) form(v variant, spread float64) string {
	drawn := fmt.Sprintf(w.say["drawn"], trim(spread*100, 0))
	switch {
	case v.Form == Evading && v.Drawn:
		return w.say["evading"] + w.say["list"] + drawn
	case v.Form == Evading:
		return w.say["evading"]
	case v.Drawn:
		return drawn
	}
	return w.say["plain"]
}

// metric names a metric where the rows above do not help: those that begin with dots
// are of good log-ins that were stepped up.
func (w lexicon) metric(m Metric) string {
	if rest, ok := strings.CutPrefix(w.metrics[m], "... "); ok {
		return w.say["stepped"] + w.say["colon"] + rest
	}
	return w.metrics[m]
}

// seedText writes seeds in runs: 11-20.
func seedText(seeds []uint64) string {
	var parts []string
	for i := 0; i < len(seeds); {
		j := i
		for j+1 < len(seeds) && seeds[j+1] == seeds[j]+1 {
			j++
		}
		part := strconv.FormatUint(seeds[i], 10)
		if j > i {
			part += "-" + strconv.FormatUint(seeds[j], 10)
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ", ")
}

var english = lexicon{
	language: "en",
	metrics: map[Metric]string{
		Recall:       "attempts caught",
		RecallLater:  "attempts caught after day 2",
		Lost:         "accounts lost",
		LostShare:    "accounts lost of right pairs",
		FirstCaught:  "attempts before first caught",
		FirstAfter:   "time until the first caught",
		Precision:    "flagged accounts under attack",
		Evaluated:    "guesses per account and day",
		Logins:       "good log-ins, all seeds",
		RefusedCount: "good log-ins refused, count",
		RefusedRate:  "good log-ins refused",
		SteppedUp:    "good log-ins stepped up",
		CrowdUp:      "... people in focus",
		QuietUp:      "... while no alarm is on",
		QuietTrusted: "... no alarm, known device",
		AlarmUp:      "... during an alarm",
		AlarmTrusted: "... in alarm, known device",
		AbroadUp:     "... in alarm, people abroad",
		AlarmAbroad:  "... in alarm, abroad to rest",
		SharedUp:     "... mobile carrier",
		SharedRatio:  "... mobile carrier to rest",
		Delayed:      "good log-ins delayed",
		LockedOut:    "longest lock-out",
		OwnerDelayed: "owner's log-ins held up",
		AlarmCount:   "false alarms of a stratum",
		AlarmLength:  "longest false alarm",
		BudgetUsed:   "false matches of the budget",
		BusierTimes:  "false matches, busier days",
	},
	titles: map[string]string{
		AllBenign:  "All days without an attack",
		EachAttack: "Every attack",
		EachRule:   "Every rule",
	},
	defenses: map[string]string{
		"kidoban":      "Kidoban",
		"none":         "none",
		"window-5-10s": "5 / 10 s",
		"rate-20-10m":  "20 / 10 min",
		"lockout-10":   "lock-out",
	},
	why: []reason{
		{"", Recall, "window-5-10s", "Six failures within seconds are enough for it, whoever shares the address: compare the refused of b1 and b2."},
		{"", FirstCaught, "window-5-10s", "Six failures within seconds are enough for it, whoever shares the address: compare the refused of b1 and b2."},
		{"", Recall, "rate-20-10m", "After 20 requests it refuses everybody behind the address, in b1b nearly the whole office too: compare the refused."},
		{"", FirstCaught, "rate-20-10m", "After 20 requests it refuses everybody behind the address, in b1b nearly the whole office too: compare the refused."},
		{"", Precision, "lockout-10", "It flags an account only after ten failures in a row, and so lets most attempts through: compare the attempts caught. During an alarm we ask strangers for proof as well; about 3 in 100 of them give up and stay flagged."},
		{"", Precision, "window-5-10s", "Whoever attacks from few addresses can be told by them alone. During an alarm we ask strangers for proof as well; about 3 in 100 of them give up and stay flagged."},
		{"", Precision, "rate-20-10m", "Whoever attacks from few addresses can be told by them alone. During an alarm we ask strangers for proof as well; about 3 in 100 of them give up and stay flagged."},
		{nameA5, "", "lockout-10", "It locks the account for its owner too."},
		{"a", RefusedRate, "window-5-10s", "It looks at addresses only. We also limit tries at a name from devices that its account does not know. Now and then guesses, or the owner's own program with an old password, have spent them when the owner comes on a new device."},
		{"a", LockedOut, "window-5-10s", "It looks at addresses only. We also limit tries at a name from devices that its account does not know. Now and then guesses, or the owner's own program with an old password, have spent them when the owner comes on a new device."},
		{"a", LockedOut, "rate-20-10m", "It looks at addresses only. We also limit tries at a name from devices that its account does not know. Now and then guesses, or the owner's own program with an old password, have spent them when the owner comes on a new device."},
		{"", RefusedRate, "none", "It refuses nobody, attackers included."},
		{"", SteppedUp, "none", "It asks nobody for anything, attackers included."},
		{"", Delayed, "none", "It makes nobody wait, attackers included."},
		{"", OwnerDelayed, "none", "It makes nobody wait, attackers included."},
		{"", LockedOut, "none", "It locks nobody out, attackers included."},
		{"", SteppedUp, "window-5-10s", "No way to ask for proof: whom they suspect they refuse. Compare the refused."},
		{"", SteppedUp, "rate-20-10m", "No way to ask for proof: whom they suspect they refuse. Compare the refused."},
		{"", SteppedUp, "lockout-10", "No way to ask for proof: whom they suspect they refuse. Compare the refused."},
		{"", Delayed, "window-5-10s", "No way to delay: whom they suspect they refuse. Compare the refused."},
		{"", Delayed, "rate-20-10m", "No way to delay: whom they suspect they refuse. Compare the refused."},
		{"", Delayed, "lockout-10", "No way to delay: whom they suspect they refuse. Compare the refused."},
	},
	say: map[string]string{
		"unexplained": "not explained", "colon": ": ", "against": " against ",
		"never":     "never",
		"unit days": " d", "unit hours": " h", "unit minutes": " min", "unit seconds": " s",
		"or": " or ", "plain": "as written", "evading": "evading", "drawn": "numbers drawn within ±%s%%",
		"heading": "Simulation of attacks and good log-ins", "scenario files": "scenario files", "rule pack": "rule pack",
		"seeds": "seeds", "spread": "spread", "scale": "scale", "made": "made", "no spread": "none drawn",
		"scaled":  "People and attempts are scaled, so counts are not those that the targets mean.",
		"targets": "Targets", "met": "met", "missed": "missed", "not_run": "not run",
		"count targets": "%d met, %d missed, %d not run", "limit": "limit", "worst": "worst", "seed": "seed", "median": "median",
		"beaten mark": "Better in \"%[2]s\": %[1]s. %[3]s",

		"headline good": "All %d targets that were tried are met.", "headline missed": "%d of %d targets are missed.", "headline none": "No target was tried.",
		"missed heading": "What was missed", "instead of": " instead of ", "list": ", ",
		"tile of": "%s of %s", "simpler": "Beside Kidoban: no defense; 5 / 10 s: an address is refused for 4 hours after six failures within seconds, of which one is forgiven every 10 s; 20 / 10 min: an address has 20 requests in 10 minutes; lock-out: ten failures in a row lock an account for 30 minutes.",
		"in all": "All scenarios as written, all seeds", "quiet stepped": "good log-ins stepped up, no alarm",
		"tile lost": "Accounts lost", "tile lost note": "of the right pairs that attackers had.",
		"tile caught": "Attempts caught", "tile caught note": "of %s, before the attacker could learn whether the password was right.",
		"tile refused": "Good log-ins refused", "tile refused note": "of those with the right password, attacks included.",
		"tile stepped": "Good log-ins asked for more proof", "tile stepped note": "while no campaign alarm was on; %s while one was.",

		"attacks": "Attacks at a glance", "attacks note": "The worst of the seeds, scenarios as written. An attempt is caught if it is answered before the attacker could learn whether the password was right. Attackers solve every puzzle and sit out every delay.",
		"days": "Ordinary days at a glance", "days note": "No attack, or one beside ordinary work. The worst of the seeds; the whole bar is 5%.",
		"scenario": "scenario", "caught": "attempts caught", "lost": "accounts lost", "acted after": "attempts before first caught", "good stepped": "good log-ins stepped up",
		"refused": "refused", "known stepped": "known devices stepped up", "alarms": "false alarms",
		"beaten heading": "Where another defense does better", "beaten note": "The worst seeds of both, as written and evading.", "beaten none": "Nowhere in what was tried, or nothing was compared.",
		"figure": "figure", "where": "where", "other": "other", "why": "why", "verdict": "verdict", "targets all": "Every target, its limit and what came of it",
		"each attack": "Each attack", "each day": "Each ordinary day",
		"tried attack": "%s attempts, %s with the right password, beside %s good log-ins (seed %d, the worst).", "tried people": "%s good log-ins (seed %d, the worst).",
		"chart": "What was tried, and when we acted", "legend caught": "caught", "legend through": "not caught", "legend alarm": "campaign alarm on", "legend good": "good log-ins", "legend bothered": "of these stepped up or refused",
		"chart label": "Over time: %s attempts, of which %s were caught; %s good log-ins. The figures are in the table below.",
		"per slice":   "Attempts, at most %s per %s", "good slice": "Good log-ins, at most %s per %s", "first at": "The first was caught after %s attempts and %s (dashed line).", "first never": "Nothing was ever caught.",
		"as table": "The chart as a table", "from": "from", "attempts": "attempts",
		"defense": "defense", "form": "form", "compared": "Beside simpler defenses", "bothered": "Who was bothered", "variants": "When the attack changes",
		"people": "people", "logins": "good log-ins", "stepped": "stepped up", "share": "share",
		"group all": "all", "group quiet": "no alarm on", "group quiet known": "no alarm on, known device", "group alarm": "during an alarm", "group alarm known": "during an alarm, known device",
		"group alarm abroad": "during an alarm, abroad", "group shared": "through a mobile carrier", "group crowd": "people in focus", "turned away": "refused",
		"alarm list": "Campaign alarms", "stratum": "of", "length": "length",
		"thresholds": "Thresholds: false matches of each rule in 100,000 good log-ins",
		"thresholds note": "%[1]s good log-ins on days without an attack, and %[2]s on days with %[3]s times as many people in the same offices and behind the same carriers. A rule matches falsely if it matches a good log-in or has decided on whom it is from. " +
			"The worst seed must stay within the rule's budget, and a busier day within %[4]s times the share of the others, or of one in 100,000 where that is more.",
		"budget": "budget", "all seeds": "all seeds", "busier": "%s× busier", "times": "times", "rule": "rule", "number": "number, and from where on it counts", "max": "highest",
		"never matched": "Without a false match, on busier days too:",
		"numbers":       "What good log-ins reach of the numbers that rules compare",
		"how heading":   "How this was measured",
		"how":           "Made-up people and attackers meet the shipped defense in virtual time, and the truth about each attempt is known. Each scenario is played once per seed, and the worst seed counts. Thresholds were set on other seeds. The hashes name the scenario files and rules that were used; equal hashes, seeds and programs give equal figures.",
	},
}

var japanese = lexicon{
	language: "ja",
	metrics: map[Metric]string{
		Recall:       "止めた試行",
		RecallLater:  "止めた試行(二日目以降)",
		Lost:         "奪われたアカウント",
		LostShare:    "正しい組のうち奪われた割合",
		FirstCaught:  "最初に止めるまでの試行",
		FirstAfter:   "最初に止めるまでの時間",
		Precision:    "要注意としたうち攻撃対象",
		Evaluated:    "一日・一件あたりの推測",
		Logins:       "正しいログイン(全シード)",
		RefusedCount: "拒否した正しいログイン(件)",
		RefusedRate:  "拒否した正しいログイン",
		SteppedUp:    "追加確認した正しいログイン",
		CrowdUp:      "... 主役",
		QuietUp:      "... 警報なし",
		QuietTrusted: "... 警報なし・既知の端末",
		AlarmUp:      "... 警報中",
		AlarmTrusted: "... 警報中・既知の端末",
		AbroadUp:     "... 警報中・海外の人",
		AlarmAbroad:  "... 警報中・海外と他の比",
		SharedUp:     "... 携帯網の人",
		SharedRatio:  "... 携帯網と他の比",
		Delayed:      "遅らせた正しいログイン",
		LockedOut:    "最長の締め出し",
		OwnerDelayed: "妨げられた本人のログイン",
		AlarmCount:   "誤警報(層ごとの最多)",
		AlarmLength:  "最長の誤警報",
		BudgetUsed:   "誤検知(許容量に対する比)",
		BusierTimes:  "誤検知(混雑日の倍率)",
	},
	titles: map[string]string{
		AllBenign:  "攻撃のない日すべて",
		EachAttack: "攻撃ごと",
		EachRule:   "ルールごと",
	},
	defenses: map[string]string{
		"kidoban":      "Kidoban",
		"none":         "防御なし",
		"window-5-10s": "10秒5回",
		"rate-20-10m":  "10分20回",
		"lockout-10":   "10回ロック",
	},
	why: []reason{
		{"", Recall, "window-5-10s", "数秒に 6 回の失敗で動き、同じアドレスの人を区別しません。b1 と b2 の拒否と比べてください。"},
		{"", FirstCaught, "window-5-10s", "数秒に 6 回の失敗で動き、同じアドレスの人を区別しません。b1 と b2 の拒否と比べてください。"},
		{"", Recall, "rate-20-10m", "20 回を超えるとそのアドレスの全員を拒否し、b1b では事務所のほぼ全員を締め出します。拒否と比べてください。"},
		{"", FirstCaught, "rate-20-10m", "20 回を超えるとそのアドレスの全員を拒否し、b1b では事務所のほぼ全員を締め出します。拒否と比べてください。"},
		{"", Precision, "lockout-10", "10 回続けて失敗したアカウントだけを要注意とし、試行のほとんどを通します。止めた試行と比べてください。Kidoban は警報中、見知らぬ端末にも確認を求め、その 100 人に約 3 人は諦めて要注意のまま残ります。"},
		{"", Precision, "window-5-10s", "少ないアドレスからの攻撃はアドレスだけで見分けられます。Kidoban は警報中、見知らぬ端末にも確認を求め、その 100 人に約 3 人は諦めて要注意のまま残ります。"},
		{"", Precision, "rate-20-10m", "少ないアドレスからの攻撃はアドレスだけで見分けられます。Kidoban は警報中、見知らぬ端末にも確認を求め、その 100 人に約 3 人は諦めて要注意のまま残ります。"},
		{nameA5, "", "lockout-10", "本人もアカウントから締め出します。"},
		{"a", RefusedRate, "window-5-10s", "アドレスだけを見ます。Kidoban は、アカウントが知らない端末からの試行を名前ごとにも制限します。推測や、本人の古いパスワードを持つプログラムがそれを使い切ったところへ、本人が新しい端末で来ることがまれにあります。"},
		{"a", LockedOut, "window-5-10s", "アドレスだけを見ます。Kidoban は、アカウントが知らない端末からの試行を名前ごとにも制限します。推測や、本人の古いパスワードを持つプログラムがそれを使い切ったところへ、本人が新しい端末で来ることがまれにあります。"},
		{"a", LockedOut, "rate-20-10m", "アドレスだけを見ます。Kidoban は、アカウントが知らない端末からの試行を名前ごとにも制限します。推測や、本人の古いパスワードを持つプログラムがそれを使い切ったところへ、本人が新しい端末で来ることがまれにあります。"},
		{"", RefusedRate, "none", "誰も拒否しません。攻撃者も拒否しません。"},
		{"", SteppedUp, "none", "誰にも追加確認を求めません。攻撃者にも求めません。"},
		{"", Delayed, "none", "誰も待たせません。攻撃者も待たせません。"},
		{"", OwnerDelayed, "none", "誰も待たせません。攻撃者も待たせません。"},
		{"", LockedOut, "none", "誰も締め出しません。攻撃者も締め出しません。"},
		{"", SteppedUp, "window-5-10s", "追加確認の手段がなく、疑わしければ拒否します。拒否の割合と比べてください。"},
		{"", SteppedUp, "rate-20-10m", "追加確認の手段がなく、疑わしければ拒否します。拒否の割合と比べてください。"},
		{"", SteppedUp, "lockout-10", "追加確認の手段がなく、疑わしければ拒否します。拒否の割合と比べてください。"},
		{"", Delayed, "window-5-10s", "遅らせる手段がなく、疑わしければ拒否します。拒否の割合と比べてください。"},
		{"", Delayed, "rate-20-10m", "遅らせる手段がなく、疑わしければ拒否します。拒否の割合と比べてください。"},
		{"", Delayed, "lockout-10", "遅らせる手段がなく、疑わしければ拒否します。拒否の割合と比べてください。"},
	},
	say: map[string]string{
		"unexplained": "説明はまだありません", "colon": ":", "against": " 対 ",
		"never":     "止まらず",
		"unit days": "日", "unit hours": "時間", "unit minutes": "分", "unit seconds": "秒",
		"or": " か ", "plain": "基本形", "evading": "回避形", "drawn": "数値 ±%s%%",
		"heading": "攻撃と正しいログインのシミュレーション", "scenario files": "シナリオ", "rule pack": "ルール",
		"seeds": "シード", "spread": "ばらつき", "scale": "縮尺", "made": "作成", "no spread": "なし",
		"scaled":  "人数と試行を縮小しているため、件数は目標が想定するものと異なります。",
		"targets": "目標", "met": "達成", "missed": "未達", "not_run": "未実施",
		"count targets": "達成 %d、未達 %d、未実施 %d", "limit": "目標", "worst": "最悪", "seed": "シード", "median": "中央値",
		"beaten mark": "「%[2]s」で優れる:%[1]s。%[3]s",

		"headline good": "試した目標 %d 件をすべて達成しました。", "headline missed": "試した目標のうち %[1]d 件が未達です(全 %[2]d 件)。", "headline none": "試した目標はありません。",
		"missed heading": "未達の目標", "instead of": "、目標 ", "list": "、",
		"tile of": "%s / %s", "simpler": "比較した防御:「10秒5回」は失敗が数秒に 6 回続いたアドレスを 4 時間拒否(10 秒ごとに 1 回分を許す)、「10分20回」はアドレスごとに 10 分 20 回まで、「10回ロック」は 10 回続けて失敗したアカウントを 30 分ロックします。",
		"in all": "基本形すべて、全シードの合計", "quiet stepped": "追加確認(警報なし)",
		"tile lost": "奪われたアカウント", "tile lost note": "攻撃者が持つ正しい組のうち。",
		"tile caught": "止めた試行", "tile caught note": "%s 件のうち、パスワードの正否を知られる前に止めた割合。",
		"tile refused": "拒否した正しいログイン", "tile refused note": "正しいパスワードによるもののうち。攻撃中も含みます。",
		"tile stepped": "追加確認を求めた正しいログイン", "tile stepped note": "警報のない間の割合。警報中は %s。",

		"attacks": "攻撃の一覧", "attacks note": "基本形、最悪のシードの値です。「止めた」とは、パスワードの正否を攻撃者が知る前に応答したことをいいます。攻撃者はどのパズルも解き、どの遅延も待ちます。",
		"days": "ふだんの日の一覧", "days note": "攻撃のない日、または仕事の傍らに攻撃がある日です。最悪のシードの値で、棒の全長は 5% です。",
		"scenario": "シナリオ", "caught": "止めた試行", "lost": "奪われたアカウント", "acted after": "止めるまでの試行", "good stepped": "追加確認した正しいログイン",
		"refused": "拒否", "known stepped": "既知の端末の追加確認", "alarms": "誤警報",
		"beaten heading": "他の防御のほうが優れている点", "beaten note": "基本形と回避形、双方の最悪のシードの値です。", "beaten none": "試した範囲にはないか、比較していません。",
		"figure": "指標", "where": "該当", "other": "他の防御", "why": "理由", "verdict": "判定", "targets all": "すべての目標と結果",
		"each attack": "それぞれの攻撃", "each day": "それぞれのふだんの日",
		"tried attack": "試行 %s 件、うち正しいパスワード %s 件。同じ間の正しいログイン %s 件(最悪のシード %d)。", "tried people": "正しいログイン %s 件(最悪のシード %d)。",
		"chart": "何が試され、いつ動いたか", "legend caught": "止めた", "legend through": "止めなかった", "legend alarm": "警報中", "legend good": "正しいログイン", "legend bothered": "うち追加確認か拒否",
		"chart label": "時間ごとの試行 %s 件、止めた試行 %s 件、正しいログイン %s 件。数値は下の表にあります。",
		"per slice":   "試行(最大 %s 件 / %s)", "good slice": "正しいログイン(最大 %s 件 / %s)", "first at": "最初に止めるまで試行 %s 件、%s(破線)。", "first never": "一度も止めていません。",
		"as table": "グラフを表で見る", "from": "開始", "attempts": "試行",
		"defense": "防御", "form": "形", "compared": "簡単な防御との比較", "bothered": "誰が妨げられたか", "variants": "攻撃が変わったとき",
		"people": "利用者", "logins": "正しいログイン", "stepped": "追加確認", "share": "割合",
		"group all": "全体", "group quiet": "警報なし", "group quiet known": "警報なし・既知の端末", "group alarm": "警報中", "group alarm known": "警報中・既知の端末",
		"group alarm abroad": "警報中・海外", "group shared": "携帯網の共有アドレス", "group crowd": "主役の人々", "turned away": "拒否",
		"alarm list": "警報の一覧", "stratum": "対象", "length": "長さ",
		"thresholds": "しきい値:正しいログイン 10 万件あたりの誤検知(ルールごと)",
		"thresholds note": "攻撃のない日の正しいログイン %[1]s 件と、同じ事務所・同じ携帯網に %[3]s 倍の人がいる日の %[2]s 件で測りました。ルールが正しいログインに一致するか、その人への決定を出していれば誤検知とします。" +
			"最悪のシードでもルールの許容量に収まり、混雑日の割合は通常日(10 万件に 1 件を下回ればその値)の %[4]s 倍以内であることが条件です。",
		"budget": "許容量", "all seeds": "全シード", "busier": "%s 倍の混雑", "times": "倍率", "rule": "ルール", "number": "数値と、疑わしいとする値", "max": "最大",
		"never matched": "混雑日も含めて誤検知のないルール:",
		"numbers":       "ルールが比べる数値に、正しいログインがどこまで達するか",
		"how heading":   "測り方",
		"how":           "架空の利用者と攻撃者が、仮想の時間の中で出荷時の防御に向かいます。各試行の真実はわかっています。シナリオはシードごとに一度ずつ行い、最悪のシードを採ります。しきい値は別のシードで決めました。ハッシュは使ったシナリオとルールを示し、ハッシュ、シード、プログラムが同じなら数値も同じです。",
	},
}
