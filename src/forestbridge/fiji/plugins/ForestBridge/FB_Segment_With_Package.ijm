// FB Segment With Package: every pixel of an open image to its class, with a package (.zip), a forest (.forest) or an ilastik project (.ilp).
// run("FB Segment With Package", "model=[nuclei.zip] input=[a.tif] output=Segmentation");
//   model=   path of the package, forest or project
//   input=   title of an open image; the active one by default
//   output=  Segmentation (labels), Probabilities (a channel for each class) or Uncertainty
//   device=  auto, cpu or cuda
//   tile=    for packages: wanted length of a tile in pixels; 0 leaves the choice to forestbridge
//   rois=    names of classes whose objects go to the ROI Manager, with commas between; none by default
// Makes the image "segmentation of a.tif", "probabilities of a.tif" or "uncertainty of a.tif".
requires("1.53t");
var lib = libFolder();
var job = getDirectory("temp") + "forestbridge-" + d2s(getTime(), 0) + "-" + d2s(floor(random * 1e9), 0);
var wasBatch = is("Batch Mode");
headless = call("java.lang.System.getProperty", "java.awt.headless");
model = "";
options = call("ij.Macro.getOptions");
if (options == "null")
    model = call("ij.Prefs.get", "forestbridge.model", "");
Dialog.create("FB Segment With Package");
if (headless == "true")
    Dialog.addString("Model", model, 40);
else
    Dialog.addFile("Model", model);
Dialog.addString("Input", "", 20);
Dialog.addChoice("Output", newArray("Segmentation", "Probabilities", "Uncertainty"), "Segmentation");
Dialog.addChoice("Device", newArray("auto", "cpu", "cuda"), "auto");
Dialog.addNumber("Tile", 0);
Dialog.addString("Rois", "", 20);
Dialog.show();
model = Dialog.getString();
input = Dialog.getString();
output = Dialog.getChoice();
device = Dialog.getChoice();
tile = Dialog.getNumber();
rois = Dialog.getString();

if (!wasBatch)
    setBatchMode(true);
if (model == "")
    finish("status=error message=expected model= with the path of a package (.zip), forest (.forest) or ilastik project (.ilp), found none");
lines = split(check(runMacro(lib + "save.ijm", input + "\n" + job)), "\n");
kind = toLowerCase(output);
if (kind == "segmentation")
    kind = "labels";
result = job + File.separator + File.getName(job) + ".tif";
words = job + "\npredict\n" + lines[2] + "\n-o\n" + result + "\n--kind\n" + kind + "\n--device\n" + device;
if (endsWith(toLowerCase(model), ".zip"))
    words = words + "\n--package\n" + model;
else
    words = words + "\n--forest\n" + model;
if (tile > 0)
    words = words + "\n--tile\n" + d2s(tile, 0);
reply = check(runMacro(lib + "call.ijm", lib + "\n" + words));
check(runMacro(lib + "show.ijm", result + "\n" + toLowerCase(output) + " of " + lines[1] + "\n" + lines[1]));
if (rois != "") {
    if (!wasBatch)
        setBatchMode("exit and display"); // batch mode has a ROI Manager of its own
    check(runMacro(lib + "rois.ijm", rois + "\n" + reply));
}
call("ij.Prefs.set", "forestbridge.model", model);
finish("status=ok");

function check(reply) {
    if (!startsWith(reply, "status=ok"))
        finish(reply);
    return reply;
}

function finish(reply) {
    runMacro(lib + "end.ijm", lib + "\n" + job + "\n" + d2s(wasBatch, 0) + "\n" + reply);
    exit;
}

function libFolder() {
    folder = getDirectory("plugins");
    if (folder == "") { // headless there are no menus, which know it
        folder = call("java.lang.System.getProperty", "plugins.dir", "");
        if (File.isDirectory(folder + File.separator + "plugins"))
            folder = folder + File.separator + "plugins";
        folder = folder + File.separator;
    }
    return folder + "ForestBridge" + File.separator + "lib" + File.separator;
}
