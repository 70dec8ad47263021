package world

// pair is a name as it is written and as it is spelled in Latin letters.
type pair struct{ written, latin string }

var families = []pair{
	{"佐藤", "sato"}, {"鈴木", "suzuki"}, {"高橋", "takahashi"}, {"田中", "tanaka"}, {"伊藤", "ito"}, {"渡辺", "watanabe"},
	{"山本", "yamamoto"}, {"中村", "nakamura"}, {"小林", "kobayashi"}, {"加藤", "kato"}, {"吉田", "yoshida"}, {"山田", "yamada"},
	{"佐々木", "sasaki"}, {"山口", "yamaguchi"}, {"松本", "matsumoto"}, {"井上", "inoue"}, {"木村", "kimura"}, {"林", "hayashi"},
	{"斎藤", "saito"}, {"清水", "shimizu"}, {"山崎", "yamazaki"}, {"森", "mori"}, {"池田", "ikeda"}, {"橋本", "hashimoto"},
	{"阿部", "abe"}, {"石川", "ishikawa"}, {"山下", "yamashita"}, {"中島", "nakajima"}, {"石井", "ishii"}, {"小川", "ogawa"},
	{"前田", "maeda"}, {"岡田", "okada"}, {"長谷川", "hasegawa"}, {"藤田", "fujita"}, {"後藤", "goto"}, {"近藤", "kondo"},
	{"村上", "murakami"}, {"遠藤", "endo"}, {"青木", "aoki"}, {"坂本", "sakamoto"}, {"福田", "fukuda"}, {"太田", "ota"},
	{"西村", "nishimura"}, {"藤井", "fujii"}, {"金子", "kaneko"}, {"岡本", "okamoto"}, {"藤原", "fujiwara"}, {"三浦", "miura"},
	{"中野", "nakano"}, {"原田", "harada"}, {"松田", "matsuda"}, {"竹内", "takeuchi"}, {"小野", "ono"}, {"田村", "tamura"},
	{"中山", "nakayama"}, {"和田", "wada"}, {"石田", "ishida"}, {"森田", "morita"}, {"上田", "ueda"}, {"内田", "uchida"},
	{"柴田", "shibata"}, {"酒井", "sakai"}, {"宮崎", "miyazaki"}, {"横山", "yokoyama"}, {"高木", "takagi"}, {"安藤", "ando"},
}

var givens = []pair{
	{"陽子", "yoko"}, {"健一", "kenichi"}, {"美咲", "misaki"}, {"大輔", "daisuke"}, {"真由美", "mayumi"}, {"翔太", "shota"},
	{"直樹", "naoki"}, {"恵子", "keiko"}, {"拓也", "takuya"}, {"由美", "yumi"}, {"誠", "makoto"}, {"彩", "aya"},
	{"浩二", "koji"}, {"智子", "tomoko"}, {"隆", "takashi"}, {"愛", "ai"}, {"和也", "kazuya"}, {"久美子", "kumiko"},
	{"亮", "ryo"}, {"明美", "akemi"}, {"修", "osamu"}, {"結衣", "yui"}, {"達也", "tatsuya"}, {"さくら", "sakura"},
	{"学", "manabu"}, {"裕子", "yuko"}, {"悠人", "yuto"}, {"奈々", "nana"}, {"淳", "jun"}, {"麻衣", "mai"},
	{"秀樹", "hideki"}, {"千尋", "chihiro"}, {"剛", "tsuyoshi"}, {"優子", "yuuko"}, {"蓮", "ren"}, {"葵", "aoi"},
	{"聡", "satoshi"}, {"香織", "kaori"}, {"雄太", "yuta"}, {"美穂", "miho"}, {"光", "hikaru"}, {"紗希", "saki"},
	{"正樹", "masaki"}, {"理恵", "rie"}, {"圭介", "keisuke"}, {"ひなた", "hinata"}, {"進", "susumu"}, {"絵里", "eri"},
}

var englishFamilies = []string{
	"Smith", "Johnson", "Brown", "Taylor", "Wilson", "Clark", "Walker", "Hall", "Young", "King", "Wright", "Green", "Baker", "Hill",
	"Carter", "Mitchell", "Turner", "Parker", "Collins", "Edwards", "Stewart", "Morris", "Murphy", "Cook", "Rogers", "Reed", "Bailey",
	"Bell", "Cooper", "Ward", "Gray", "Watson", "Brooks", "Kelly", "Sanders", "Price", "Bennett", "Wood", "Ross", "Foster",
}

var englishGivens = []string{
	"James", "Mary", "Robert", "Linda", "Michael", "Susan", "David", "Karen", "Daniel", "Lisa", "Mark", "Nancy", "Paul", "Emma",
	"Steven", "Olivia", "Andrew", "Grace", "Kevin", "Chloe", "Brian", "Hannah", "George", "Laura", "Edward", "Amy", "Jason", "Anna",
	"Ryan", "Helen", "Eric", "Julia", "Adam", "Rachel", "Nathan", "Megan", "Peter", "Claire", "Simon", "Alice",
}

// companies are what a Japanese company may be called before the word for its
// trade, and trades are those words.
var companies = []pair{
	{"あおば", "aoba"}, {"みなと", "minato"}, {"若葉", "wakaba"}, {"北斗", "hokuto"}, {"東雲", "shinonome"}, {"さつき", "satsuki"},
	{"白樺", "shirakaba"}, {"青嵐", "seiran"}, {"ひかり", "hikari"}, {"大和田", "owada"}, {"瑞穂野", "mizuhono"}, {"七星", "nanahoshi"},
	{"朝凪", "asanagi"}, {"かえで", "kaede"}, {"銀河台", "gingadai"}, {"松風", "matsukaze"}, {"こだま", "kodama"}, {"千鳥", "chidori"},
	{"桜丘", "sakuragaoka"}, {"星野原", "hoshinohara"}, {"夕映", "yubae"}, {"あけぼの", "akebono"}, {"竹取", "taketori"}, {"海風", "umikaze"},
	{"柊", "hiiragi"}, {"南天", "nanten"}, {"雪見", "yukimi"}, {"花水木", "hanamizuki"}, {"つばめ", "tsubame"}, {"琥珀", "kohaku"},
}

var trades = []pair{
	{"製作所", "seisakusho"}, {"商事", "shoji"}, {"建設", "kensetsu"}, {"物流", "butsuryu"}, {"食品", "shokuhin"}, {"印刷", "insatsu"},
	{"会計事務所", "kaikei"}, {"不動産", "fudosan"}, {"システム", "systems"}, {"クリニック", "clinic"}, {"デザイン", "design"}, {"精機", "seiki"},
	{"電機", "denki"}, {"出版", "shuppan"}, {"観光", "kanko"}, {"薬品", "yakuhin"},
}

var englishCompanies = []string{
	"Harbour", "Northfield", "Bluestone", "Maple Lane", "Silverbrook", "Oakridge", "Lantern", "Copper Hill", "Westbridge", "Riverside",
	"Evergreen", "Stonegate", "Brightwater", "Foxglove", "Kingfisher", "Meadow", "Alder", "Highfield", "Tidewater", "Juniper",
}

var englishTrades = []string{"Logistics", "Studio", "Foods", "Partners", "Engineering", "Clinics", "Software", "Travel", "Printing", "Estates"}

// department is one part of a company and the titles of those who work there.
type department struct {
	ja, en string
	icon   string
}

var departments = []department{
	{"営業部", "Sales", "business"}, {"開発部", "Engineering", "idea"}, {"総務部", "General Affairs", "document"}, {"人事部", "Human Resources", "heart"},
	{"経理部", "Accounting", "check"}, {"カスタマーサポート部", "Customer Support", "group"}, {"広報部", "Public Relations", "star"},
	{"情報システム部", "IT", "security"}, {"企画部", "Planning", "project"}, {"品質管理部", "Quality", "study"},
}

var (
	titlesJa = []string{"部長", "課長", "主任", "リーダー", "", "", "", "", ""}
	titlesEn = []string{"Director", "Manager", "Team Lead", "Senior Associate", "", "", "", ""}
)

var projects = []pair{
	{"新サイト公開プロジェクト", "Website relaunch"}, {"オフィス移転", "Office move"}, {"夏の展示会", "Summer trade fair"}, {"新卒採用", "Graduate hiring"},
	{"年末キャンペーン", "Year-end campaign"}, {"基幹システム更改", "ERP upgrade"}, {"社内勉強会", "Study group"}, {"顧客満足度調査", "Customer survey"},
	{"新商品開発", "New product"}, {"働き方改革", "Flexible work"}, {"セキュリティ委員会", "Security committee"}, {"健康診断", "Health check-ups"},
	{"フットサル部", "Football club"}, {"ペーパーレス推進", "Going paperless"}, {"防災訓練", "Fire drill"}, {"海外展開", "Going abroad"},
}

// talk is messages that fit any room, in the order they might be said.
var talk = []pair{
	{"お疲れさまです。今週の予定を共有します。", "Hi all, here is the plan for this week."},
	{"ありがとうございます。確認しました。", "Thanks, got it."},
	{"資料を更新しましたので、お手すきの際にご確認ください。", "I have updated the document. Please have a look when you have a minute."},
	{"明日の会議は10時からに変更になりました。会議室Bです。", "Tomorrow's meeting has moved to 10:00, room B."},
	{"承知しました。参加します。", "Works for me, I'll be there."},
	{"先方からお返事がありました。来週水曜の午後でいかがでしょうか。", "The customer answered. Would Wednesday afternoon next week suit everybody?"},
	{"水曜の午後、問題ありません。", "Wednesday afternoon is fine."},
	{"見積書のたたき台を作りました。\n・A案：3か月\n・B案：2か月\nご意見をお願いします。", "I drafted the quote:\n- option A: three months\n- option B: two months\nWhat do you think?"},
	{"B案がよさそうです。金額だけもう一度確認させてください。", "Option B looks good. Let me check the amount once more."},
	{"午後から外出します。戻りは17時ごろの予定です。", "I'm out this afternoon, back around five."},
	{"了解です。お気をつけて。", "OK, safe travels."},
	{"議事録を共有フォルダに置きました。", "The minutes are in the shared folder."},
	{"助かります！", "Very helpful, thank you!"},
	{"来月のシフト、金曜までに希望を出してください。", "Please send me your wishes for next month's shifts by Friday."},
	{"テスト環境の準備ができました。動作確認をお願いします。", "The test environment is ready. Could somebody try it?"},
	{"確認しました。問題なさそうです。", "Tried it, looks good to me."},
	{"本日はここまでにします。お疲れさまでした。", "That's it for today. Have a nice evening!"},
	{"おはようございます。今日もよろしくお願いします。", "Good morning, everybody."},
}

// Words people build passwords of.
var (
	passwordWords = []string{
		"sakura", "hanabi", "ramen", "tanuki", "kitsune", "momiji", "nagoya", "osaka", "fujisan", "himawari", "natsumi", "taiyaki", "kamome",
		"onigiri", "shiroi", "aozora", "yukidaruma", "matcha", "kotatsu", "daruma", "guitar", "coffee", "purple", "summer", "winter", "dragon",
		"kitchen", "bicycle", "sunday", "orange", "marble", "rocket", "garden", "pepper", "window", "silver", "planet", "cookie", "tigers", "melody",
	}
	passwordEnds = []string{"!", "#", "?", "$", "*", ".", "-", "", "", "", "", ""}
)

var englishZones = []string{"Europe/London", "America/New_York", "America/Los_Angeles", "Australia/Sydney", "Asia/Singapore"}
