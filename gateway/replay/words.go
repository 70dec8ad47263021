package replay

// Languages are those that reports can be written in.
var Languages = []string{"en", "ja"}

// words are what reports say, in one language.
type words map[string]string

func wordsOf(language string) words {
	if language == "ja" {
		return japanese
	}
	return english
}

var english = words{
	"events": "events", "time": "time", "count": "count", "sums": "sums", "left out": "left out", "OLD": "OLD", "NEW": "NEW",
	"span": "%s to %s UTC", "counted": "%s events counted of %s replayed",
	"summed": "%s of the events are from sums, without names; %s more denials are only counted",
	"unread": "%d could not be read, %d were of something else, %d values were taken as unknown or changed",
	"rules":  "Hits of rules: %d differ, %d are the same", "the same": "%d rules that are the same",
	"gained": "gained", "lost": "lost", "all": "NEW", "mode": "mode", "exempted": "exempted matches", "fell back": "hits with another action in the place of what cannot be done",
	"same": "same", "added": "added", "changed": "changed", "removed": "removed",
	"any":     "Events that any rule hits, where none did (gained), or no longer (lost)",
	"touched": "%s events of %s names, %s accounts, %s organizations",
	"proved":  "%s of %s proved benign later: %s (95%%: %s to %s)", "open": "; %s still had time to",
	"chart": "Hits of the rules that differ, in columns of %s", "at most": "≤ %s",
	"answers": "What would be answered otherwise if the rules that differ were enforced", "no answer": "none",
	"stricter": "stricter", "milder": "milder", "first gained": "The first that only NEW hits", "first lost": "The first that only OLD hits",
	"error": "A condition could not be evaluated:",
	"days":  "%d d", "hours": "%d h", "minutes": "%d min", "seconds": "%d s",
	"benign means": "Counted for \"proved benign\": accounts, or else names, with the device or else the network they came from. One did if the account logged in from there " +
		"or passed a second factor there within 7 days, and neither another rule nor a detector spoke against it. Up to 2,048 are watched. ~ marks estimates, ±3%.",
}

var japanese = words{
	"events": "イベント", "time": "期間", "count": "件数", "sums": "集計", "left out": "除外", "OLD": "OLD", "NEW": "NEW",
	"span": "%s から %s (UTC)", "counted": "%s 件を集計（再生したのは %s 件）",
	"summed": "うち %s 件は名前のない集計から。ほかに %s 件の拒否は件数のみ",
	"unread": "読めないもの %d 件、別の種類 %d 件、不明または変更とした値 %d 件",
	"rules":  "ルールの一致: 異なる %d、同じ %d", "the same": "同じルール %d 件",
	"gained": "増加", "lost": "減少", "all": "NEW", "mode": "モード", "exempted": "除外された一致", "fell back": "実行できず別の対応に替えた一致",
	"same": "同じ", "added": "追加", "changed": "変更", "removed": "削除",
	"any":     "どれかのルールに一致するイベント: 新たに一致（増加）、一致しなくなった（減少）",
	"touched": "%s 件、名前 %s、アカウント %s、組織 %s",
	"proved":  "後に無害と判明: %s / %s = %s（95%%: %s から %s）", "open": "、%s はまだ期間内",
	"chart": "異なるルールの一致（1列 = %s）", "at most": "最大 %s",
	"answers": "異なるルールを適用したとき答えが変わるもの", "no answer": "なし",
	"stricter": "より厳しく", "milder": "より緩く", "first gained": "NEW だけが一致する最初のもの", "first lost": "OLD だけが一致する最初のもの",
	"error": "評価できなかった条件:",
	"days":  "%d 日", "hours": "%d 時間", "minutes": "%d 分", "seconds": "%d 秒",
	"benign means": "「無害と判明」の単位は、アカウント（なければ名前）と端末（なければネットワーク）の組。7日以内に同じ所からログインするか第二要素を通し、ほかのルールも検知器も異を唱えないもの。" +
		"最大 2,048 組を追う。~ は推定値（±3%）。",
}
