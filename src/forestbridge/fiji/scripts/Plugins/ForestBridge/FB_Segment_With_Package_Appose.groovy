// FB Segment With Package, through a warm worker of Appose: pixels go through shared memory, the status bar shows progress, Esc cancels.
// run("FB Segment With Package Appose", "model=[nuclei.zip] input=[a.tif] output=Segmentation device=auto tile=0");
#@ String (label="Model", description="Path of a package (.zip), forest (.forest) or ilastik project (.ilp)", required=false, persist=false, value="") model
#@ String (label="Input", description="Title of an open image; the active one by default", required=false, persist=false, value="") input
#@ String (label="Output", choices={"Segmentation", "Probabilities", "Uncertainty"}, persist=false, value="Segmentation") output
#@ String (label="Device", choices={"auto", "cpu", "cuda"}, persist=false, value="auto") device
#@ Integer (label="Tile", description="For packages: wanted length of a tile in pixels; 0 leaves the choice", persist=false, value=0) tile

def root = new File(System.getProperty("plugins.dir", "."))
def plugins = ij.IJ.getDirectory("plugins") ?: new File(root, "plugins").isDirectory() ? new File(root, "plugins") : root // headless there are no menus
def file = new File(new File(plugins.toString()), "ForestBridge/lib/ForestBridge.groovy")
def key = "forestbridge.library:" + file.lastModified() // compiled once in the life of this Fiji
def library = System.getProperties().get(key)
if (library == null) {
    try {
        library = new GroovyClassLoader(getClass().getClassLoader()).parseClass(file).getDeclaredConstructor().newInstance()
    } catch (org.codehaus.groovy.control.CompilationFailedException | FileNotFoundException | NoClassDefFoundError e) {
        ij.IJ.log(e.toString())
        ij.IJ.error("ForestBridge", "expected Appose in this Fiji, and the commands installed by forestbridge fiji install, found neither or one; the macro command without Appose in its name needs no Appose")
        return
    }
    library.folder = file.getParentFile()
    System.getProperties().put(key, library)
}
library.segment(model: model, input: input, output: output, device: device, tile: tile)
