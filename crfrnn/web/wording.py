"""Every word of the page, in English and Chinese."""

LANGUAGES = {"en": "English", "zh": "中文"}

WORDS: dict[str, tuple[str, str]] = {
    # the page
    "title": ("Cut-outs and label maps with sharp edges", "抠图与分割：边缘清晰"),
    "about": (
        "A network guesses what each pixel is; then neighbouring pixels of like colour agree, step by step, until"
        " the outline follows the edges in the photo. What you upload stays on this server, and is deleted within"
        " two hours.",
        "网络先猜测每个像素的类别；然后颜色相近的邻近像素逐步达成一致，直到轮廓贴合照片中的边缘。上传的内容只保存在本服务器上，并会在两小时内删除。",
    ),
    "language": ("Language", "语言"),
    "tab_photo": ("Photo", "照片"),
    "tab_strokes": ("Strokes", "笔触"),
    "tab_predictions": ("Predictions", "预测"),
    "about_photo": ("It knows {classes} (model **{model}**).", "它认识：{classes}（模型 **{model}**）。"),
    "photo": ("Upload, paste or take a photo", "上传、粘贴或拍摄照片"),
    "samples": ("Or pick a sample", "或选择示例"),
    "to_strokes": ("Something else? Paint strokes on the photo", "其他物体？在照片上涂笔触"),
    "about_strokes": (
        "Any photo, anything on it: draw a line on each thing and on the background, each in its own colour. Not"
        " right yet? Paint more and press the button again.",
        "任何照片、任何物体：用不同颜色在每个物体和背景上各画几笔。结果不理想？继续涂画，再按一次按钮。",
    ),
    "names": ("What each colour means", "每种颜色的含义"),
    "learn": ("Segment", "分割"),
    "another": ("Another photo", "换一张照片"),
    "live": ("Repeat whenever I paint", "涂画后自动更新"),
    "sample_strokes": ("Show me: a cat with strokes", "示例：带笔触的猫"),
    "red": ("red", "红色"),
    "blue": ("blue", "蓝色"),
    "green": ("green", "绿色"),
    "yellow": ("yellow", "黄色"),
    "magenta": ("magenta", "品红"),
    "cyan": ("cyan", "青色"),
    "about_predictions": (
        "Predictions of your own network with their photo: a label PNG, or probabilities (labels, height, width)"
        " as .npz or .npy.",
        "您自己网络的预测，以及对应的照片：标签 PNG，或概率数组（类别, 高, 宽）.npz / .npy。",
    ),
    "predictions": ("Predictions", "预测"),
    "confidence": ("Label PNG: how sure it is", "标签 PNG：置信度"),
    "unsure": ("Label PNG: value that means “no label”, such as 255", "标签 PNG：表示“无标签”的值，如 255"),
    "refine": ("Sharpen the edges", "细化边缘"),
    "sample_predictions": ("Show me: a rough outline of a cat", "示例：猫的粗略轮廓"),
    # the result
    "comparison": ("before | after", "之前 | 之后"),
    "iteration": ("Step by step", "逐步观察"),
    "play": ("▶ Play", "▶ 播放"),
    "kept": ("What stays in the cut-out", "抠图中保留的内容"),
    "settings": ("Settings: how the edges are placed (the CRF)", "设置：如何确定边缘（CRF）"),
    "preset": ("Start from", "预设"),
    "learned": ("learned with the network", "随网络学得"),
    "theta_alpha": (
        "How far like colours reach each other, in pixels (θα, bilateral kernel)",
        "同色像素相互影响的距离，像素（θα，双边核）",
    ),
    "theta_beta": ("How unlike colours may be, 0–255 (θβ, bilateral kernel)", "允许的颜色差异，0–255（θβ，双边核）"),
    "bilateral_weight": ("How much like colours count (w⁽¹⁾, bilateral kernel)", "颜色相近的影响力（w⁽¹⁾，双边核）"),
    "theta_gamma": (
        "How far neighbours reach each other, in pixels (θγ, spatial kernel)",
        "邻近像素相互影响的距离，像素（θγ，空间核）",
    ),
    "spatial_weight": ("How much neighbours count (w⁽²⁾, spatial kernel)", "邻近像素的影响力（w⁽²⁾，空间核）"),
    "iterations": ("Steps (T, mean-field iterations)", "步数（T，平均场迭代次数）"),
    "normalization": ("How neighbours are averaged (normalisation of the kernels)", "邻居如何平均（核的归一化）"),
    "download": ("Make the files to download", "生成下载文件"),
    "files": (
        "Downloads: cut-out and labels at the photo’s size, overlay, probabilities, settings for crfrnn refine",
        "下载：原尺寸的抠图和标签图、叠加图、概率，以及供 crfrnn refine 使用的参数",
    ),
    "api": ("Use it from a program", "通过程序调用"),
    # what came of it
    "nothing_yet": (
        "The result appears here. Pick a sample to begin.",
        "结果会显示在这里。请先选择一个示例。",
    ),
    "done": (
        "{width} × {height} pixels, {labels} classes, {seconds:.2f} s.",
        "{width} × {height} 像素，{labels} 个类别，{seconds:.2f} 秒。",
    ),
    "changed": ("Placing the edges changed {changed:.1%} of the pixels.", "确定边缘改变了 {changed:.1%} 的像素。"),
    "left_out": ("No steps: this is the guess alone.", "步数为 0：仅为最初的猜测。"),
    "unknown": (
        "Nothing that this model knows is clear to see here: paint strokes on the photo instead.",
        "这张照片里没有模型能确定认出的东西：请改用笔触。",
    ),
    "scaled": (
        "Your photo has {width} × {height} pixels: a smaller copy is shown, the downloads have the full size.",
        "您的照片为 {width} × {height} 像素：此处显示缩小的副本，下载文件为原尺寸。",
    ),
    "animated": ("Only the first picture of the file is used.", "仅使用文件中的第一张图片。"),
    "deep": (
        "Not all of this picture’s 16 bits are in use; those that are were stretched to the whole range.",
        "此图片未用满 16 位；已将实际使用的范围拉伸到全范围。",
    ),
    "soft": (
        "The map has many levels of grey, and is taken for a soft mask: the whiter, the more probable the foreground.",
        "该图含有大量灰阶，因此被视为软掩膜：越白表示越可能是前景。",
    ),
    "resized": (
        "The predictions were scaled to the photo.",
        "预测已缩放到照片尺寸。",
    ),
    "curve": ("probability that moved to other classes in each step", "每一步中移向其他类别的概率"),
    "learning": ("learning from the strokes", "正在学习笔触"),
    "segmenting": ("segmenting", "正在分割"),
    "refining": ("refining", "正在细化"),
    "writing": ("writing the files", "正在生成文件"),
    # refusals: one sentence each
    "no_photo": ("Choose a photo first.", "请先选择一张照片。"),
    "no_result": (
        "There is no result yet, or it was put away while others were busy: start again with the photo.",
        "尚无结果，或结果已被清理：请重新选择照片。",
    ),
    "unreadable": (
        "This file is not a picture that can be read: use JPEG, PNG, WebP, BMP, TIFF or GIF, whole and undamaged.",
        "无法读取此图片：请使用完整无损的 JPEG、PNG、WebP、BMP、TIFF 或 GIF 文件。",
    ),
    "several": (
        "This file holds several pictures: save the one that is meant as a file of its own.",
        "此文件包含多张图片：请将需要的那一张另存为单独的文件。",
    ),
    "too_large": (
        "This picture has more than {limit} megapixels: scale it down.",
        "此图片超过 {limit} 百万像素：请先缩小。",
    ),
    "too_heavy": (
        "This file has {megabytes:.0f} MB, at most {limit} are taken.",
        "此文件有 {megabytes:.0f} MB，上限为 {limit} MB。",
    ),
    "too_thin": ("This picture is too small or too thin to segment.", "此图片太小或太窄，无法分割。"),
    "no_strokes": (
        "Nothing is drawn: draw on each thing that is to be told apart, and on the background.",
        "尚未涂画：请在每个要区分的物体和背景上涂画。",
    ),
    "one_class": (
        "Only one colour is drawn: draw on the background, too, in another colour.",
        "只用了一种颜色：请用另一种颜色在背景上涂画。",
    ),
    "no_predictions": ("Choose a file of predictions, too.", "请再选择一个预测文件。"),
    "not_predictions": (
        "These predictions cannot be used: {reason}.",
        "无法使用此预测文件：{reason}。",
    ),
    "other_shape": (
        "The predictions are {w} × {h}, which is another shape than the photo’s {width} × {height}.",
        "预测为 {w} × {h}，与照片 {width} × {height} 的形状不符。",
    ),
    "wrong_settings": (
        "These settings are outside of their range.",
        "参数超出范围。",
    ),
    "busy": ("Too many visitors at once: try again in a minute.", "访问者过多：请稍后再试。"),
    "failed": ("Something went wrong on the server; your picture was not kept.", "服务器出错；您的图片没有保留。"),
}

CLASSES = {  # of the models that come with the package
    "background": "背景", "aeroplane": "飞机", "bicycle": "自行车", "bird": "鸟", "boat": "船", "bottle": "瓶子",
    "bus": "公交车", "car": "汽车", "cat": "猫", "chair": "椅子", "cow": "牛", "dining table": "餐桌",
    "dog": "狗", "horse": "马", "motorbike": "摩托车", "person": "人", "potted plant": "盆栽", "sheep": "羊",
    "sofa": "沙发", "train": "火车", "tv monitor": "电视显示器", "sky": "天空", "building": "建筑", "pole": "杆",
    "road": "道路", "pavement": "人行道", "tree": "树", "sign symbol": "标志牌", "fence": "围栏", "pedestrian": "行人",
    "bicyclist": "骑车人",
}  # fmt: skip


class Refusal(ValueError):
    """What a visitor is told, in one sentence of `WORDS`, when something cannot be done."""

    def __init__(self, key: str, **values: object):
        self.key, self.values = key, values
        super().__init__(say("en", key, **values))

    def said(self, language: str) -> str:
        return say(language, self.key, **self.values)


def say(language: str, key: str, **values: object) -> str:
    """The words for `key` in a language of `LANGUAGES`, English for any other.

    >>> say("zh", "play"), say("fr", "photo")
    ('▶ 播放', 'Upload, paste or take a photo')
    """
    words = WORDS[key][1 if language == "zh" else 0]
    return words.format(**values) if values else words


def class_name(language: str, name: str) -> str:
    """The word for a class of the package's models; the name of any other as it is.

    >>> class_name("zh", "cat"), class_name("en", "cat"), class_name("zh", "my cat")
    ('猫', 'cat', 'my cat')
    """
    return CLASSES.get(name, name) if language == "zh" else name


def language_of(accepted: str) -> str:
    """The language for a browser's Accept-Language header: the first of its wishes that there is.

    >>> language_of("de,zh-CN;q=0.8,en;q=0.5"), language_of("")
    ('zh', 'en')
    """
    for wish in accepted.lower().split(","):
        short = wish.split(";")[0].split("-")[0].strip()
        if short in LANGUAGES:
            return short
    return "en"
