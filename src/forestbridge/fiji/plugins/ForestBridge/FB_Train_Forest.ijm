// FB Train Forest: a forest from an open image and what was painted on it.
// run("FB Train Forest", "input=[a.tif] labels=[labels of a.tif] names=background,nucleus forest=[nuclei.forest] overwrite");
//   input=    title of an open image; the active one by default
//   labels=   title of an open label image: 0 unlabelled, k = class k. By default the regions of the ROI Manager count: the class of a
//             region is its group (Edit > Selection > Properties), else its name without the number at its end
//   names=    names of the classes in the order of their numbers, with commas between
//   forest=   path of the forest to write, NAME.forest
//   preset=   default, featureforest or ilastik
//   trees=    number of trees; 0 is the preset's
//   3d        filters along z too
//   overwrite replaces a forest that is there
// Writes the out-of-bag accuracy into the Log window.
requires("1.53t");
var lib = libFolder();
var job = getDirectory("temp") + "forestbridge-" + d2s(getTime(), 0) + "-" + d2s(floor(random * 1e9), 0);
var wasBatch = is("Batch Mode");
headless = call("java.lang.System.getProperty", "java.awt.headless");
Dialog.create("FB Train Forest");
Dialog.addString("Input", "", 20);
Dialog.addString("Labels", "", 20);
Dialog.addString("Names", "", 30);
if (headless == "true")
    Dialog.addString("Forest", "", 40);
else
    Dialog.addFile("Forest", "");
Dialog.addChoice("Preset", newArray("default", "featureforest", "ilastik"), "default");
Dialog.addNumber("Trees", 0);
Dialog.addCheckbox("3d", false);
Dialog.addCheckbox("Overwrite", false);
Dialog.show();
input = Dialog.getString();
labels = Dialog.getString();
names = Dialog.getString();
forest = Dialog.getString();
preset = Dialog.getChoice();
trees = Dialog.getNumber();
volume = Dialog.getCheckbox();
overwrite = Dialog.getCheckbox();

if (forest == "")
    finish("status=error message=expected forest= with the path of the forest to write (NAME.forest), found none");
if (labels == "") { // before batch mode, which has a ROI Manager of its own
    if (roiManager("count") == 0)
        finish("status=error message=expected regions in the ROI Manager, or a label image with labels=, found none; draw on the image and press t");
    File.makeDirectory(job);
    painted = job + File.separator + "regions.zip";
    roiManager("deselect");
    roiManager("save", painted);
}
if (!wasBatch)
    setBatchMode(true);
lines = split(check(runMacro(lib + "save.ijm", input + "\n" + job)), "\n");
if (labels != "") {
    words = split(check(runMacro(lib + "save.ijm", labels + "\n" + job + "\nlabels-")), "\n");
    painted = words[2];
}
selectImage(lines[1]);
words = job + "\ntrain\n" + lines[2] + "\n--labels\n" + painted + "\n-o\n" + forest + "\n--preset\n" + preset;
if (names != "")
    words = words + "\n--names\n" + replace(names, " *, *", "\n");
if (trees > 0)
    words = words + "\n--n-trees\n" + d2s(trees, 0);
if (volume)
    words = words + "\n--3d";
if (overwrite)
    words = words + "\n--overwrite";
reply = check(runMacro(lib + "call.ijm", lib + "\n" + words));
print("ForestBridge: " + forest + ", " + call("ij.Macro.getValue", reply, "trees", "") + " trees from "
    + call("ij.Macro.getValue", reply, "pixels", "") + " pixels, out-of-bag accuracy " + call("ij.Macro.getValue", reply, "accuracy", ""));
call("ij.Prefs.set", "forestbridge.model", forest);
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
