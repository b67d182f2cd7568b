// FB Segment Folder: every image of a folder, one after the other; a file that cannot be read does not stop the others.
// run("FB Segment Folder", "model=[nuclei.zip] folder=[images] destination=[results] output=Segmentation filter=*.tif");
//   model=        path of a package (.zip), forest (.forest) or ilastik project (.ilp)
//   folder=       folder with the images
//   destination=  folder for NAME_segmentation.tif, NAME_probabilities.tif or NAME_uncertainty.tif; made if it is not there
//   output=       Segmentation, Probabilities or Uncertainty
//   filter=       which files, such as *_DAPI.tif; all images by default
//   device=       auto, cpu or cuda
//   tile=         for packages: wanted length of a tile in pixels; 0 leaves the choice to forestbridge
//   overwrite     replaces results that are there
requires("1.53t");
var lib = libFolder();
var job = getDirectory("temp") + "forestbridge-" + d2s(getTime(), 0) + "-" + d2s(floor(random * 1e9), 0);
var wasBatch = is("Batch Mode");
headless = call("java.lang.System.getProperty", "java.awt.headless");
model = "";
options = call("ij.Macro.getOptions");
if (options == "null")
    model = call("ij.Prefs.get", "forestbridge.model", "");
Dialog.create("FB Segment Folder");
if (headless == "true")
    Dialog.addString("Model", model, 40);
else
    Dialog.addFile("Model", model);
if (headless == "true")
    Dialog.addString("Folder", "", 40);
else
    Dialog.addDirectory("Folder", "");
if (headless == "true")
    Dialog.addString("Destination", "", 40);
else
    Dialog.addDirectory("Destination", "");
Dialog.addChoice("Output", newArray("Segmentation", "Probabilities", "Uncertainty"), "Segmentation");
Dialog.addString("Filter", "", 20);
Dialog.addChoice("Device", newArray("auto", "cpu", "cuda"), "auto");
Dialog.addNumber("Tile", 0);
Dialog.addCheckbox("Overwrite", false);
Dialog.show();
model = Dialog.getString();
folder = Dialog.getString();
destination = Dialog.getString();
output = Dialog.getChoice();
filter = Dialog.getString();
device = Dialog.getChoice();
tile = Dialog.getNumber();
overwrite = Dialog.getCheckbox();

if (!wasBatch)
    setBatchMode(true);
if (model == "" || folder == "" || destination == "")
    finish("status=error message=expected model=, folder= and destination=, found one of them empty");
kind = toLowerCase(output);
if (kind == "segmentation")
    kind = "labels";
words = job + "\npredict\n" + folder + "\n-o\n" + destination + "\n--kind\n" + kind + "\n--suffix\n_" + toLowerCase(output) + ".tif\n--device\n" + device;
if (filter != "")
    words = words + "\n--match\n" + filter;
if (endsWith(toLowerCase(model), ".zip"))
    words = words + "\n--package\n" + model;
else
    words = words + "\n--forest\n" + model;
if (tile > 0)
    words = words + "\n--tile\n" + d2s(tile, 0);
if (overwrite)
    words = words + "\n--overwrite";
reply = check(runMacro(lib + "call.ijm", lib + "\n" + words));
print("ForestBridge: " + call("ij.Macro.getValue", reply, "outputs", "") + " images segmented into " + destination);
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
